"""The training loop that pretraining and fine-tuning share: loss, optimizer, schedules, progress, checkpoints."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint as recompute

from .errors import TrainError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .attention.transformers_attention import StepPages
    from .batches import Batches
    from .checkpoint import Checkpoint
    from .mask_plan import MaskPlan


# Tokens, and numbers of their logits, that exist at a time.
LOSS_CHUNK_TOKENS, LOSS_CHUNK_NUMBERS = 16384, 1 << 28
LAST_RATE_SHARE = 0.02
# A slice starts here: it includes loading, encoding and compiling.
STARTED = time.monotonic()


def pick_device(name: str) -> torch.device:
    """ "auto" is the GPU if there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("No GPU is available; --device cpu trains slowly, with the eager reference", 1)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def be_deterministic(wanted: bool) -> None:
    """Gives the same bits for the same seed: reductions in a fixed order, also in cuBLAS and SDPA. Call it before CUDA starts."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def sum_loss(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the cross entropies of hidden [n, H]; logits in f32."""
    return (F.cross_entropy(head(hidden).float(), targets, reduction="none") * weights).sum()


@dataclass(frozen=True)
class Teacher:
    """The base model of a run, frozen. Its dense predictions make up `share` of the loss; the text is the rest."""

    model: PreTrainedModel
    share: float

    @torch.no_grad()
    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """[n, H] before the output projection, read densely."""
        return self.model.get_decoder()(input_ids=ids, use_cache=False, pages=None).last_hidden_state.flatten(0, 1)

    def sum_loss(
        self, head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, own: torch.Tensor
    ) -> torch.Tensor:
        """As sum_loss; `own` [n, H] is the teacher's hidden."""
        logs = head(hidden).float().log_softmax(-1)
        with torch.no_grad():
            wanted = self.model.get_output_embeddings()(own).float().log_softmax(-1)
        away = F.kl_div(logs, wanted, log_target=True, reduction="none").sum(-1)
        text = F.nll_loss(logs, targets, reduction="none")
        return ((self.share * away + (1 - self.share) * text) * weights).sum()


def weighted_loss(
    model: PreTrainedModel,
    ids: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    pages: StepPages | None = None,
    teacher: Teacher | None = None,
) -> torch.Tensor:
    """Mean over the weights; logits exist for a part of the tokens at a time and are recomputed in the backward pass."""
    hidden = model.get_decoder()(input_ids=ids, use_cache=False, pages=pages).last_hidden_state.flatten(0, 1)
    targets, weights, head = targets.flatten(), weights.flatten(), model.get_output_embeddings()
    inputs = [hidden, targets, weights, *([teacher.hidden(ids)] if teacher else [])]
    total, size = 0.0, min(LOSS_CHUNK_TOKENS, max(1, LOSS_CHUNK_NUMBERS // head.weight.shape[0]))
    for parts in zip(*(each.split(size) for each in inputs), strict=True):
        total = total + recompute(teacher.sum_loss if teacher else sum_loss, head, *parts, use_reentrant=False)
    return total / weights.sum()


def make_optimizer(model: PreTrainedModel, rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases) do not decay."""
    trained = [tensor for tensor in model.parameters() if tensor.requires_grad]
    groups = [
        dict(params=[tensor for tensor in trained if tensor.dim() >= 2], weight_decay=decay),
        dict(params=[tensor for tensor in trained if tensor.dim() < 2], weight_decay=0.0),
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate, betas=(0.9, 0.95), fused=True)


def rate_share(step: int, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then half a cosine down to LAST_RATE_SHARE."""
    falling = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / max(1, warmup_steps)) * (LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * falling)


@dataclass(frozen=True)
class LoopOptions:
    steps: int
    rate: float
    warmup_steps: int
    seed: int
    decay: float = 0.05
    clip: float = 1.0
    save_seconds: float = 120.0
    slice_seconds: float = math.inf
    log_steps: int = 20


class Loop:
    """Runs steps from the checkpoint on. `masks` is a MaskPlan, or None for dense training; without a teacher, the text is the target."""

    def __init__(
        self,
        model: PreTrainedModel,
        batches: Batches,
        checkpoint: Checkpoint,
        options: LoopOptions,
        masks: MaskPlan | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.batches, self.checkpoint, self.options, self.masks = model, batches, checkpoint, options, masks
        self.teacher = teacher
        self.optimizer = make_optimizer(model, options.rate, options.decay)
        self.device = next(model.parameters()).device
        self.log = Path(checkpoint.file).with_name("progress.jsonl")

    def run(self) -> bool:
        """True once all steps are done, False if the slice ended first. Either way, the checkpoint contains the last step."""
        steps = self.options.steps
        step = first = self.checkpoint.load(self.model, self.optimizer)
        started = saved = time.monotonic()
        if first:
            say(f"Continues after step {first:,} of {steps:,}")
        tokens, self.model.training = 0, True
        while step < steps and (step == first or time.monotonic() - STARTED < self.options.slice_seconds):
            loss, count = self.step(step)
            step, tokens = step + 1, tokens + count
            if step % self.options.log_steps == 0 or step == steps:
                self.report(step, loss.item(), tokens, time.monotonic() - started, step - first)
            if time.monotonic() - saved > self.options.save_seconds and step < steps:
                self.checkpoint.save(step, self.model, self.optimizer)
                saved = time.monotonic()
        if step > first:
            self.checkpoint.save(step, self.model, self.optimizer)
        return step == steps

    def step(self, step: int) -> tuple[torch.Tensor, int]:
        torch.manual_seed(self.options.seed * 1_000_003 + step)  # for dropout: a resumed run drops the same numbers as an uninterrupted one
        ids, targets, weights = self.batches.batch(step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * rate_share(step, self.options.steps, self.options.warmup_steps)
        pages = self.masks.pages(step) if self.masks else None
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = weighted_loss(self.model, ids, targets, weights, pages, self.teacher)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach(), ids.numel()

    def report(self, step: int, loss: float, tokens: int, seconds: float, done: int) -> None:
        if not math.isfinite(loss):
            raise TrainError(f"The loss is {loss} at step {step}; the checkpoint before it remains, try a lower --rate", 1)
        steps, speed = self.options.steps, tokens / seconds
        row = dict(
            step=step,
            loss=round(loss, 5),
            tokens_per_second=round(speed),
            rate=self.optimizer.param_groups[0]["lr"],
            context=self.batches.plan.context(step - 1),
        )
        warmth, degree = "", self.masks.temperature(step - 1) if self.masks else None
        if degree is not None:
            row["temperature"], warmth = degree, f"  T {degree:.3f}"
        self.note(row)
        say(
            f"step {step:,}/{steps:,}  loss {loss:.3f}  context {row['context']:,}{warmth}  {speed:,.0f} tokens/s  "
            f"ETA {format_seconds((steps - step) * seconds / done)}"
        )

    def note(self, row: dict[str, Any]) -> None:
        """Appends a line to the run's progress."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a") as stream:
            stream.write(json.dumps(row) + "\n")


def format_seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def compile_layers(model: PreTrainedModel) -> None:
    """Compiles the decoder's layers one by one: they share one graph, so it takes seconds instead of a minute for the whole model."""
    torch._dynamo.config.recompile_limit = 64  # every mask and context of a process has its graph
    for layer in model.get_decoder().layers:
        layer.compile()
