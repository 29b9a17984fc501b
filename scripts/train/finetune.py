"""Fine-tunes a model for sparse reading: attention with a soft mask around the top-k cut.

    python -m train.finetune --model DIR --data FILE... --budget 512 --page-size 8 --context 16384 --mask soft --steps N --out DIR

Several contexts are mixed, with equal numbers of tokens unless shares are given, and several budgets, with equal numbers of steps. The
same command continues an interrupted run, with the same result. The folder contains a sparsity.json, from which `pagesift generate` takes
its defaults.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .arguments import add_run_arguments, check_run, loop_options, make_batches, make_parser, make_plan, run_settings, stages_of
from .attention.policy import LAMBDAS, MASKS, PAGE_SIZES, PagePolicy
from .checkpoint import Checkpoint
from .errors import TrainError, run_main
from .loop import Loop, Teacher, be_deterministic, compile_layers, pick_device, say
from .regularize import add_dropout, run_whole

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from .batches import Batches


def parse() -> argparse.Namespace:
    parser = make_parser("finetune", __doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face model folder")
    parser.add_argument(
        "--budget",
        type=int,
        nargs="+",
        default=[512],
        metavar="TOKENS",
        help="what a query reads in training, default 512; with several, each step uses one",
    )
    parser.add_argument("--read-budget", type=int, metavar="TOKENS", help="the budget in sparsity.json, default the largest --budget")
    parser.add_argument("--page-size", type=int, choices=PAGE_SIZES, default=8)
    parser.add_argument("--scorer", choices=tuple(LAMBDAS), default="unique", help="the score of a page, in training and in reading")
    parser.add_argument("--lam", type=float, help="weight of the spread in the score, default 0.5 for unique, 2 for diag")
    parser.add_argument("--sink", type=int, default=1, metavar="PAGES", help="first pages always read, default 1")
    parser.add_argument("--recent", type=int, default=2, metavar="PAGES", help="last pages always read, default 2")
    parser.add_argument(
        "--context",
        nargs="+",
        default=["16384"],
        metavar="TOKENS[:SHARE]",
        help="default 16384; several are mixed, by their shares of all tokens if given",
    )
    parser.add_argument("--mask", choices=MASKS, default="soft")
    parser.add_argument(
        "--temperature",
        type=float,
        nargs=2,
        default=[1.0, 0.1],
        metavar=("FIRST", "LAST"),
        help="of the soft mask, in logits; annealed, default 1 to 0.1",
    )
    parser.add_argument("--anneal", type=float, default=0.7, metavar="SHARE", help="share of the steps until the last temperature")
    parser.add_argument(
        "--dense-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of steps without the mask, so that the model does not lose dense reading of prompts; default 0",
    )
    parser.add_argument("--lora", type=int, metavar="RANK", help="train LoRA adapters of this rank instead of all weights")
    parser.add_argument(
        "--distill",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the loss that is the KL from the model's own dense predictions before training; default 0, the text alone",
    )
    parser.add_argument("--attention", choices=("auto", "fused", "eager"), default="auto", help="Triton kernels, or plain PyTorch")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time: for large models")
    add_run_arguments(parser, rate=3e-4, tokens_per_step=65536)
    options = parser.parse_args()
    options.context, options.shares = stages_of(options.context)
    options.lam = LAMBDAS[options.scorer] if options.lam is None else options.lam
    options.read_budget = max(options.budget) if options.read_budget is None else options.read_budget
    return options


def policies_of(options: argparse.Namespace) -> list[PagePolicy]:
    """One checked policy per training budget; the budget for reading is checked too."""

    def policy(budget: int, flag: str) -> PagePolicy:
        return PagePolicy(options.mask, budget, options.page_size, options.lam, options.sink, options.recent, options.scorer).check(flag)

    policies = [policy(budget, "--budget") for budget in options.budget]
    policy(options.read_budget, "--read-budget")
    for context in options.context:
        if context <= max(options.budget):
            raise TrainError(
                f"Context is {context} tokens, expected more than the budget {max(options.budget)}; otherwise nothing is left out"
            )
    if min(options.temperature) <= 0 or not 0 <= options.anneal <= 1:
        raise TrainError("Temperatures must be above 0, and --anneal a share from 0 to 1")
    if not 0 <= options.dense_share <= 1:
        raise TrainError(f"--dense-share is {options.dense_share}, expected a share from 0 to 1")
    if not 0 <= options.distill <= 1:
        raise TrainError(f"--distill is {options.distill}, expected a share from 0 to 1")
    if options.lora is not None and options.lora < 1:
        raise TrainError(f"--lora is {options.lora}, expected a rank of at least 1")
    return policies


def pick_attention(options: argparse.Namespace, device: torch.device) -> bool:
    """Whether the kernels run. Prints a message if not, because the eager reference allocates n x n numbers per head."""
    fused = options.attention == "fused" or options.attention == "auto" and device.type == "cuda"
    if options.mask != "none" and not fused:
        say("Attention: the eager reference in plain PyTorch, slow and for short contexts only; the kernels require a GPU")
    return fused


def sparsity_of(options: argparse.Namespace, policies: list[PagePolicy]) -> dict[str, Any]:
    """Content of sparsity.json."""
    policy, budgets = policies[0], options.budget
    named = (
        "shares",
        "lora",
        "distill",
        "steps",
        "tokens_per_step",
        "rate",
        "decay",
        "dropout",
        "dense_share",
        "retrieval",
        "answers_share",
        "seed",
    )
    how = dict(
        method=f"fine-tuned, mask {policy.mask}",
        base=Path(options.model).name,
        budget_tokens=budgets if len(budgets) > 1 else budgets[0],
        contexts=options.context,
        **{name: getattr(options, name) for name in named},
        data=[Path(file).name for file in options.data],
    )
    if policy.mask == "soft":
        how["temperature"] = dict(first=options.temperature[0], last=options.temperature[1], anneal=options.anneal, unit="logit")
    return {
        "budget_tokens": options.read_budget,
        "page_size": policy.page_size,
        "scorer": policy.scorer,
        "lambda": policy.lam,
        "sink_pages": policy.sink_pages,
        "recent_pages": policy.recent_pages,
        "trained": how,
    }


def main() -> None:
    options = parse()
    policies = policies_of(options)
    from .models import load_model, load_tokenizer, read_config, refuse_existing

    refuse_existing(options.out)
    check_run(options, options.context, read_config(options.model).get("max_position_embeddings", 0))
    be_deterministic(not options.nondeterministic)
    device = pick_device(options.device)
    tokenizer = load_tokenizer(options.model)
    plan = make_plan(options, options.context, options.shares, mixed=True)
    batches, held_out = make_batches(options, plan, tokenizer, device, options.model)
    finish(options, policies, load_model(options.model, device), batches, held_out, device)


def finish(
    options: argparse.Namespace,
    policies: list[PagePolicy],
    model: PreTrainedModel,
    batches: Batches,
    held_out: np.ndarray,
    device: torch.device,
) -> None:
    from .lora import add_lora
    from .mask_plan import MaskPlan

    fused = pick_attention(options, device)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if options.lora is not None:
        add_lora(model, options.lora, options.seed)
    teacher = load_teacher(options, device) if options.distill > 0 else None
    dropout = add_dropout(model, options.dropout)
    if device.type == "cuda" and not options.no_compile:
        compile_layers(model)
    settings = run_settings(
        options,
        "model",
        "budget",
        "page_size",
        "scorer",
        "lam",
        "sink",
        "recent",
        "context",
        "shares",
        "mask",
        "temperature",
        "anneal",
        "dense_share",
        "lora",
        "distill",
    )
    run_folder = Path(options.out + ".run")
    checkpoint = Checkpoint(run_folder, settings)
    masks = MaskPlan(policies, fused, options.seed, options.steps, options.dense_share, options.temperature, options.anneal)
    loop = Loop(model, batches, checkpoint, loop_options(options), masks, teacher)
    if not run_whole(loop, dropout, held_out):
        return say(f'Paused; the same command continues from "{run_folder}"')
    write_result(options, model, run_folder, sparsity_of(options, policies))
    if device.type == "cuda":
        say(f"Peak GPU memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
    say(f'Wrote "{options.out}"')


def load_teacher(options: argparse.Namespace, device: torch.device) -> Teacher:
    """The model before training, in 16 bits on a GPU."""
    from .models import load_model

    model = load_model(options.model, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    if device.type == "cuda" and not options.no_compile:
        compile_layers(model)
    return Teacher(model.eval().requires_grad_(False), options.distill)


def write_result(options: argparse.Namespace, model: PreTrainedModel, run_folder: Path, sparsity: dict[str, Any]) -> None:
    """A model folder, or with --lora an adapter folder."""
    from .lora import save_adapter
    from .models import export, write_folder

    if options.lora is None:
        export(model, options.model, options.out, run_folder, sparsity, options.shard_size)
    else:
        write_folder(options.out, lambda folder: save_adapter(model, folder, Path(options.model).name), run_folder, sparsity)


if __name__ == "__main__":
    run_main(main)
