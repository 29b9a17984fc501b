"""Measures training throughput and peak memory against dense SDPA, and checks the kernels against the reference on this GPU.

    python -m train.bench --model DIR --out bench.json [--contexts 8192 16384 32768]

Arms alternate in one process: dense (SDPA), soft and hard mask. A step is forward, backward and optimizer of the whole model, in bf16
with weights in f32; "attention" is forward and backward of the attention of one layer alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .arguments import make_parser
from .attention.policy import LAMBDAS, PagePolicy
from .attention.reference import soft_mask_attention
from .attention.transformers_attention import StepPages, attend_step
from .checkpoint import write_file
from .errors import TrainError, run_main
from .loop import compile_layers, make_optimizer, pick_device, say, weighted_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


MASKS = ("none", "soft", "hard")
CHECK_TOKENS = 2048
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
# Errors beyond this many tolerances are not rounding; then nothing is measured or written.
WRONG = 5


def parse() -> argparse.Namespace:
    parser = make_parser("bench", __doc__)
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--out", required=True, metavar="FILE")
    parser.add_argument("--contexts", type=int, nargs="+", default=[8192, 16384, 32768])
    parser.add_argument("--tokens-per-step", type=int, default=65536)
    parser.add_argument("--budget", type=int, default=128, metavar="TOKENS")
    parser.add_argument("--page-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--check-only", action="store_true", help="compare the kernels with the reference, measure nothing")
    return parser.parse_args()


def random_heads(
    device: torch.device, dtype: torch.dtype, batch: int, heads: int, kv_heads: int, tokens: int, dim: int, seed: int = 1
) -> list[torch.Tensor]:
    """Queries, keys, values and the gradient of the output; neighbouring keys resemble each other."""
    draw = torch.Generator(device).manual_seed(seed)

    def normal(count: int) -> torch.Tensor:
        return torch.randn(batch, count, tokens, dim, device=device, generator=draw)

    keys = normal(kv_heads) * 0.7 + (normal(kv_heads) * 0.15).cumsum(2) / (1 + torch.arange(tokens, device=device)[:, None] / 500).sqrt()
    return [tensor.to(dtype) for tensor in (normal(heads) * 1.2, keys, normal(kv_heads), normal(heads))]


def norm_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of the expected values."""
    return ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()


def within(errors: dict[str, float], tolerance: float) -> bool:
    """False for NaN too, which a comparison with `max` would miss."""
    return all(error < tolerance for error in errors.values())


def results_of(attention: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs[:3]]
    out = attention(*leaves)
    out.backward(inputs[3])
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def check_kernels(device: torch.device, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of relative errors, outputs and gradients. The reference gets the same rounded inputs and means, in f32."""
    from .attention.fused import fused_soft_mask_attention

    torch.backends.cuda.matmul.allow_tf32 = False
    rows = []
    for (dtype, tolerance), dim, mask, scorer in itertools.product(TOLERANCE.items(), (64, 128), ("soft", "hard"), LAMBDAS):
        policy = PagePolicy(mask, options.budget, options.page_size, LAMBDAS[scorer], scorer=scorer).check("--budget")
        inputs = random_heads(device, dtype, 1, 8, 2, CHECK_TOKENS, dim)
        found = results_of(lambda *x, p=policy: fused_soft_mask_attention(*x, p, 0.5), inputs)
        reference = lambda *x, p=policy, d=dtype: soft_mask_attention(*x, p, 0.5, mean_dtype=d)  # noqa: E731
        wanted = results_of(reference, [tensor.float() for tensor in inputs])
        errors = dict(zip(("out", "queries", "keys", "values"), map(norm_error, found, wanted), strict=True))
        about = dict(check=mask, scorer=scorer, dtype=str(dtype), head_dim=dim, tolerance=tolerance)
        rows.append(dict(about, errors=errors, passed=within(errors, tolerance)))
        say(
            f"{'ok  ' if rows[-1]['passed'] else 'FAIL'} {mask} {scorer} {dtype} head {dim}: "
            + ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        )
    return rows


def seconds_of(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


class ModelArm:
    """Whole steps of the model under a mask."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        policy: PagePolicy,
        batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> None:
        self.model, self.optimizer, self.batch = model, optimizer, batch
        self.pages = StepPages(policy, True)
        self.pages.set_temperature(0.3)

    def __call__(self) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = weighted_loss(self.model, *self.batch, self.pages)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class AttentionArm:
    """Forward and backward of one layer's attention."""

    def __init__(self, policy: PagePolicy, inputs: Sequence[torch.Tensor]) -> None:
        self.pages, self.inputs = StepPages(policy, True), inputs

    def __call__(self) -> None:
        results_of(lambda *x: attend_step(*x, self.pages, x[0].shape[-1] ** -0.5), self.inputs)


def time_arms(arms: dict[str, Any], repeats: int) -> Any:
    """{name: (median seconds, peak bytes)}; every arm warms up once, then they alternate."""
    times, peaks = {name: [] for name in arms}, {}
    for name, arm in arms.items():
        arm()
        torch.cuda.reset_peak_memory_stats()
        arm()
        torch.cuda.synchronize()
        peaks[name] = torch.cuda.max_memory_allocated()
    for _ in range(repeats):
        for name, arm in arms.items():
            times[name].append(seconds_of(arm))
    return {name: (statistics.median(each), peaks[name]) for name, each in times.items()}


def rows_of(kind: str, arms: dict[str, Any], context: int, tokens: int, repeats: int) -> list[dict[str, Any]]:
    measured = time_arms(arms, repeats)
    dense = measured["none"][0]
    return [
        dict(
            test=kind,
            mask=mask,
            context=context,
            tokens=tokens,
            seconds=seconds,
            tokens_per_second=tokens / seconds,
            peak_gb=peak / 1e9,
            times_dense=seconds / dense,
        )
        for mask, (seconds, peak) in measured.items()
    ]


def measure(device: torch.device, options: argparse.Namespace) -> list[dict[str, Any]]:
    from .models import load_model

    model = load_model(options.model, device).train()
    optimizer, config = make_optimizer(model, 1e-6, 0.0), model.config
    if not options.no_compile:
        compile_layers(model)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rows = []
    for context in options.contexts:
        policies = {mask: PagePolicy(mask, options.budget, options.page_size).check("--budget") for mask in MASKS}
        batch = max(1, options.tokens_per_step // context)
        ids = torch.randint(3, config.vocab_size, (batch, context + 1), device=device)
        data = ids[:, :-1], ids[:, 1:], torch.ones(batch, context, device=device)
        arms = {mask: ModelArm(model, optimizer, policy, data) for mask, policy in policies.items()}
        rows += rows_of("step", arms, context, batch * context, options.repeats)
        inputs = random_heads(device, torch.bfloat16, batch, config.num_attention_heads, config.num_key_value_heads, context, head_dim)
        arms = {mask: AttentionArm(policy, inputs) for mask, policy in policies.items()}
        rows += rows_of("attention", arms, context, batch * context, options.repeats)
        for row in rows[-6:]:
            say(
                f"{row['test']:9} {context:6,} {row['mask']:4} {row['tokens_per_second']:12,.0f} tokens/s  "
                f"{row['times_dense']:.2f} x dense  peak {row['peak_gb']:.2f} GB"
            )
    return rows


def main() -> None:
    options = parse()
    if not torch.cuda.is_available():
        raise TrainError("No GPU is available, and the kernels require one; tests/train checks them with Triton's interpreter", 1)
    device = pick_device("cuda")
    about = dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, budget=options.budget, page_size=options.page_size)
    rows = check_kernels(device, options)
    wrong = [row for row in rows if not within(row["errors"], WRONG * row["tolerance"])]
    if wrong:
        raise TrainError(f"{len(wrong)} of {len(rows)} comparisons with the reference are wrong by more than rounding", 1)
    if not options.check_only:
        rows += measure(device, options)
    write_file(options.out, lambda stream: stream.write(json.dumps(dict(about, rows=rows), indent=1)), binary=False)
    failed = [row for row in rows if row.get("passed") is False]
    if failed:
        raise TrainError(f"{len(failed)} of the comparisons with the reference are beyond their tolerance", 1)


if __name__ == "__main__":
    run_main(main)
