"""Arguments that several commands share, and the objects built from them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Never

from .batches import Batches, ContextPlan
from .data import HELD_OUT, HELD_OUT_TOKENS, load_answers, load_tokens
from .episodes import Sampler
from .errors import TrainError
from .loop import LoopOptions, say

if TYPE_CHECKING:
    import numpy as np
    import torch
    from tokenizers import Tokenizer


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line, like every other error."""

    def error(self, message: str) -> Never:
        raise TrainError(f"{message[0].upper()}{message[1:]}; --help lists all options")


def make_parser(module: str, description: str) -> Parser:
    return Parser(prog=f"python -m train.{module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_run_arguments(parser: argparse.ArgumentParser, rate: float, tokens_per_step: int) -> None:
    """Arguments for data, steps and slices of a run."""
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="text files, folders or tar archives of .txt files")
    parser.add_argument("--out", required=True, metavar="DIR", help="model folder to write; DIR.run contains the checkpoint until then")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--tokens-per-step", type=int, default=tokens_per_step, help=f"default {tokens_per_step:,}")
    parser.add_argument("--rate", type=float, default=rate, help=f"highest learning rate, default {rate}")
    parser.add_argument("--warmup", type=int, default=50, metavar="STEPS", help="default 50")
    parser.add_argument("--decay", type=float, default=0.05, help="weight decay of matrices, default 0.05")
    parser.add_argument("--dropout", type=float, default=0.0, metavar="SHARE", help="against memorising, default 0")
    parser.add_argument(
        "--retrieval", type=float, default=0.55, metavar="SHARE", help="share of rows that are retrieval episodes, default 0.55"
    )
    parser.add_argument(
        "--answers", metavar="FILE", help="the model's own answers, from `pagesift generate --chat --jsonl` (see train.prompts)"
    )
    parser.add_argument("--answers-share", type=float, default=0.2, metavar="SHARE", help="share of rows from --answers, default 0.2")
    parser.add_argument("--held-out", nargs="*", default=list(HELD_OUT), metavar="NAME", help="books to hold out, by a part of their name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--cache", metavar="DIR", help="keep encoded data here")
    parser.add_argument("--slice-seconds", type=float, default=math.inf, help="stop after this time; the same command continues")
    parser.add_argument("--save-seconds", type=float, default=120.0, help="time between checkpoints, default 120")
    parser.add_argument("--log-steps", type=int, default=20)
    parser.add_argument("--shard-size", default="4GB", help="largest weight file")
    parser.add_argument("--no-compile", action="store_true", help="do not use torch.compile on a GPU")
    parser.add_argument("--nondeterministic", action="store_true", help="faster, but bits may differ from run to run")


def stages_of(texts: Iterable[object]) -> tuple[list[int], list[float]]:
    """CONTEXT or CONTEXT:SHARE -> ([context], [share of the steps]); without shares, all are equal."""
    try:
        pairs = [(int(context), float(share or 1)) for context, _, share in (str(text).partition(":") for text in texts)]
    except ValueError as error:
        named = " ".join(map(str, texts))
        raise TrainError(f'Contexts "{named}" cannot be read, wanted CONTEXT or CONTEXT:SHARE such as 4096:0.5') from error
    contexts, shares = map(list, zip(*pairs, strict=True))
    if not min(shares) > 0:
        raise TrainError("Shares of the contexts must be above 0")
    return contexts, shares


def check_run(options: argparse.Namespace, contexts: list[int], longest: int) -> None:
    """Raises TrainError for invalid numbers. `longest` is the context of the model."""
    if options.steps < 1 or options.tokens_per_step < 1:
        raise TrainError("Expected at least 1 step and 1 token per step")
    if not 0 <= options.retrieval <= 1:
        raise TrainError(f"--retrieval is {options.retrieval}, expected a share from 0 to 1")
    if options.answers and not 0 <= options.answers_share <= 1 - options.retrieval:
        raise TrainError("Expected shares of --answers-share and --retrieval that add up to at most 1")
    if not 0 <= options.dropout < 1 or options.decay < 0:
        raise TrainError("Expected a --dropout from 0 to below 1, and a --decay of at least 0")
    for context in contexts:
        if context < 2 or context > longest:
            raise TrainError(f"Context is {context} tokens, expected from 2 to the model's {longest}")


def make_batches(
    options: argparse.Namespace, plan: ContextPlan, tokenizer: Tokenizer, device: torch.device, folder: str
) -> tuple[Batches, np.ndarray]:
    """(batches, held-out tokens); `folder` has the chat template for --answers."""
    training, held_out = load_tokens(options.data, tokenizer, options.held_out, options.cache)
    say(f"{len(training):,} tokens to train on, {plan.steps:,} steps of {options.tokens_per_step:,}")
    answers = load_answers(options.answers, folder, tokenizer) if options.answers else []
    sampler = Sampler(training, tokenizer, options.seed, options.retrieval, answers, options.answers_share if answers else 0.0)
    return Batches(sampler, plan, device), held_out[-HELD_OUT_TOKENS:]


def make_plan(options: argparse.Namespace, contexts: list[int], shares: list[float], mixed: bool) -> ContextPlan:
    return ContextPlan(contexts, shares, options.steps, options.tokens_per_step, options.seed, mixed)


def loop_options(options: argparse.Namespace) -> LoopOptions:
    return LoopOptions(
        options.steps,
        options.rate,
        options.warmup,
        options.seed,
        options.decay,
        save_seconds=options.save_seconds,
        slice_seconds=options.slice_seconds,
        log_steps=options.log_steps,
    )


def run_settings(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The settings that a continuation must share with the run that it continues."""
    shared = (
        "data",
        "steps",
        "tokens_per_step",
        "rate",
        "warmup",
        "decay",
        "dropout",
        "retrieval",
        "answers",
        "answers_share",
        "held_out",
        "seed",
    )
    return {name: getattr(options, name) for name in (*shared, *names)}
