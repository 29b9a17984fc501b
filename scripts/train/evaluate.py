"""Measures sparse reading token by token: facts found, loss of prose, and KL to the model's own dense reading.

    python -m train.evaluate --model NAME=DIR... --data FILE... --out results.json

Every model and every reader answers the same trials and reads the same prose. Question and answer are decoded; only the text before
them is prefilled. Results that --out already contains are not measured again, so the command may be interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from .arguments import make_parser
from .checkpoint import read_json, write_file
from .data import HELD_OUT, HELD_OUT_TOKENS, load_tokens
from .decode import DEFAULT_LAMBDA, Prefix, Reader
from .episodes import draw_trial
from .errors import TrainError, run_main
from .loop import pick_device, say

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from .episodes import Trial


READERS = ("dense", "oracle", "quest", "unique", "diag")


def parse() -> argparse.Namespace:
    parser = make_parser("evaluate", __doc__)
    parser.add_argument("--model", nargs="+", required=True, metavar="NAME=DIR")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="only its held-out books are read")
    parser.add_argument("--held-out", nargs="+", default=list(HELD_OUT), metavar="NAME")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON; a table goes to stdout")
    parser.add_argument("--contexts", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 128, 256, 512], metavar="TOKENS")
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=(*READERS, "mean"))
    parser.add_argument("--lam", type=float, help="of unique, default 0.5")
    parser.add_argument("--page-size", type=int, default=8)
    parser.add_argument("--trials", type=int, default=200, help="default 200; 0 for none")
    parser.add_argument("--prose", type=int, default=16, metavar="DOCUMENTS", help="default 16; 0 for none")
    parser.add_argument("--prose-tokens", type=int, default=64, help="tokens decoded after each document, default 64")
    parser.add_argument("--batch", type=int, default=50, help="sequences at once, default 50")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", metavar="DIR")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--slice-seconds", type=float, default=math.inf, help="start nothing new after this time")
    parser.add_argument("--done", metavar="FILE", help="an empty file, written when everything is measured")
    return parser.parse_args()


def readers_of(options: argparse.Namespace) -> list[Reader]:
    """Dense first, because the others are compared with it."""
    lams = {**DEFAULT_LAMBDA, **({"unique": options.lam} if options.lam is not None else {})}
    names = [name for name in options.readers if name != "dense"]
    return [Reader("dense", page_size=options.page_size)] + [
        Reader(name, budget, lams[name], options.page_size) for name in names for budget in options.budgets
    ]


def wilson(found: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share."""
    share, spread = found / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return middle - half, middle + half


def equal_trials(options: argparse.Namespace, context: int, prose: np.ndarray, tokenizer: Tokenizer) -> list[Trial]:
    """Trials whose answers have equally many tokens, so that a batch is a rectangle."""
    trials, index = [], 0
    while len(trials) < options.trials:
        trial = draw_trial(options.seed, index, context, prose, tokenizer)
        index += 1
        if not trials or trial.answer_tokens == trials[0].answer_tokens:
            trials.append(trial)
    return trials


@torch.no_grad()
def measure_retrieval(
    model: PreTrainedModel, device: torch.device, options: argparse.Namespace, context: int, prose: np.ndarray, tokenizer: Tokenizer
) -> dict[str, tuple[int, int]]:
    """{reader label: (trials whose answer is correct in every token, those of them that do not continue with another digit)}"""
    readers, found, ended = readers_of(options), 0, 0
    digits = torch.tensor([index for token, index in tokenizer.get_vocab().items() if token[:1].isdigit()], device=device)
    trials = equal_trials(options, context, prose, tokenizer)
    answer = trials[0].answer_tokens
    prefilled = context - max(trial.question_tokens for trial in trials)
    for first in range(0, len(trials), options.batch):
        ids = torch.tensor([trial.ids.tolist() for trial in trials[first : first + options.batch]], device=device)
        guesses = Prefix(model, ids[:, :prefilled]).decode(ids[:, prefilled:], readers)[:, :, -answer - 1 :].argmax(-1)
        right = (guesses[:, :, :-1] == ids[:, -answer:]).all(2)
        found, ended = found + right.sum(1), ended + (right & ~torch.isin(guesses[:, :, -1], digits)).sum(1)
    return dict(zip((reader.label for reader in readers), zip(found.tolist(), ended.tolist(), strict=True), strict=True))


@torch.no_grad()
def measure_prose(
    model: PreTrainedModel, device: torch.device, options: argparse.Namespace, context: int, prose: np.ndarray
) -> dict[str, Any]:
    """{reader label: (losses [documents], KL to dense [documents])}"""
    length = context + options.prose_tokens + 1
    starts = torch.linspace(0, len(prose) - length, options.prose).long().tolist()
    readers, results = readers_of(options), {}
    for first in range(0, len(starts), options.batch):
        ids = torch.stack(
            [torch.from_numpy(prose[start : start + length].astype("int64")) for start in starts[first : first + options.batch]]
        )
        ids = ids.to(device)
        logits = Prefix(model, ids[:, :context]).decode(ids[:, context:-1], readers).log_softmax(-1)
        for reader, read in zip(readers, logits, strict=True):
            loss = F.nll_loss(read.flatten(0, 1), ids[:, context + 1 :].flatten(), reduction="none").view(len(ids), -1).mean(1)
            kl = (logits[0].exp() * (logits[0] - read)).sum(-1).mean(1)
            losses, kls = results.setdefault(reader.label, ([], []))
            losses += loss.tolist()
            kls += kl.tolist()
    return results


def mean_and_error(numbers: torch.Tensor) -> Any:
    """Mean over documents, and its standard error."""
    mean = sum(numbers) / len(numbers)
    spread = sum((x - mean) ** 2 for x in numbers) / max(1, len(numbers) - 1)
    return mean, math.sqrt(spread / len(numbers))


def measure(
    model: PreTrainedModel,
    device: torch.device,
    name: str,
    context: int,
    options: argparse.Namespace,
    prose: np.ndarray,
    tokenizer: Tokenizer,
) -> Any:
    """Rows of a model at a context, one per reader."""
    found = measure_retrieval(model, device, options, context, prose, tokenizer) if options.trials else {}
    read = measure_prose(model, device, options, context, prose) if options.prose else {}
    rows = []
    for reader in readers_of(options):
        row = dict(
            model=name,
            context=context,
            seed=options.seed,
            reader=reader.name,
            budget=reader.budget_tokens,
            lam=reader.lam,
            page_size=reader.page_size,
        )
        if found:
            count, ended = found[reader.label]
            row.update(
                trials=options.trials,
                retrieval=count / options.trials,
                retrieval_interval=wilson(count, options.trials),
                ended=ended / options.trials,
            )
        if read:
            (loss, loss_error), (kl, kl_error) = map(mean_and_error, read[reader.label])
            row.update(documents=options.prose, loss=loss, loss_error=loss_error, kl=kl, kl_error=kl_error)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| model | context | read | budget | retrieval | 95 % | and ended | loss | KL to own dense |", "|" + "---|" * 9]
    for row in rows:
        low, high = row.get("retrieval_interval", (math.nan, math.nan))
        lines.append(
            f"| {row['model']} | {row['context']:,} | {row['reader']} | {row['budget'] or ''} "
            f"| {row.get('retrieval', math.nan):.3f} | {low:.2f} to {high:.2f} | {row.get('ended', math.nan):.3f} "
            f"| {row.get('loss', math.nan):.3f} | {row.get('kl', math.nan):.4f} |"
        )
    return "\n".join(lines)


def read_results(file: str | Path) -> list[dict[str, Any]]:
    """Rows in a file of results; none if there is no file."""
    return read_json(file)["rows"] if Path(file).exists() else []


def named_models(options: argparse.Namespace) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in options.model]
    if not all(name and folder for name, _, folder in pairs):
        raise TrainError(f'--model "{" ".join(options.model)}" cannot be read, wanted NAME=DIR')
    return [(name, folder) for name, _, folder in pairs]


def write_results(file: str, rows: list[dict[str, Any]]) -> None:
    content = json.dumps(dict(rows=rows), indent=1)
    write_file(file, lambda stream: stream.write(content), binary=False)


def main() -> None:
    from .models import load_model, load_tokenizer

    options, started = parse(), time.monotonic()
    models, rows = named_models(options), read_results(options.out)
    device = pick_device(options.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for context in options.contexts:
        for name, folder in models:
            if any((row["model"], row["context"], row["seed"]) == (name, context, options.seed) for row in rows):
                continue
            if time.monotonic() - started > options.slice_seconds:
                return say("Paused; the same command continues")
            tokenizer = load_tokenizer(folder)
            prose = load_tokens(options.data, tokenizer, options.held_out, options.cache)[1][-HELD_OUT_TOKENS:]
            if len(prose) < context + options.prose_tokens + 2:
                raise TrainError(f"Held-out data has {len(prose):,} tokens, expected more than the context {context:,}", 3)
            model, begun = load_model(folder, device, dtype).eval(), time.monotonic()
            rows += measure(model, device, name, context, options, prose, tokenizer)
            write_results(options.out, rows)
            say(f"{name} at {context:,} tokens: {time.monotonic() - begun:.0f} s")
    if options.done:
        Path(options.done).touch()
    print(table(rows))


if __name__ == "__main__":
    run_main(main)
