"""Averages the weights of models that were fine-tuned from one base (model soups, Wortsman et al. 2022, arXiv 2203.05482).

    python -m train.average --model DIR DIR... --out DIR

A folder that is named twice counts twice. Sums are in f32, in the given order, so the same command writes the same bytes. Models that
select pages differently (page size, scorer, lambda, pages that are always read) have no average.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .arguments import make_parser
from .attention.policy import PagePolicy
from .checkpoint import read_json
from .errors import TrainError, run_main
from .loop import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Settings that must be equal: they define a page and its score. Budgets may differ: they only set how many pages are read.
SAME_READING = {"page_size": int, "scorer": str, "lambda": (int, float), "sink_pages": int, "recent_pages": int}
FIELDS = {"budget_tokens": int, **SAME_READING, "trained": dict}


def parse() -> argparse.Namespace:
    parser = make_parser("average", __doc__)
    parser.add_argument("--model", nargs="+", required=True, metavar="DIR", help="Hugging Face model folders of one shape")
    parser.add_argument("--out", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--read-budget", type=int, metavar="TOKENS", help="the budget in sparsity.json, default that of the first model")
    parser.add_argument("--shard-size", default="4GB", help="largest weight file")
    return parser.parse_args()


def read_sparsity(folder: str | Path) -> dict[str, Any] | None:
    """Content of sparsity.json; None if a model has none."""
    file = Path(folder) / "sparsity.json"
    if not file.exists():
        return None
    content = read_json(file)
    missing = [name for name, kind in FIELDS.items() if not isinstance(content.get(name), kind)]
    if missing:
        raise TrainError(f'"{file}" lacks {", ".join(missing)}, or contains an invalid value; expected a file from train.finetune', 3)
    return content


def average_sparsity(folders: list[str], read_budget: int | None) -> dict[str, Any] | None:
    """Content of the average's sparsity.json: its settings, and how each model was trained. None if no model has one."""
    found = [read_sparsity(folder) for folder in folders]
    if not any(found):
        if read_budget is not None:
            raise TrainError("--read-budget is written to sparsity.json, but none of the models has one; leave it out")
        return None
    first = found[0] or {}
    for folder, each in zip(folders, found, strict=True):
        other = [name for name in SAME_READING if each is None or each.get(name) != first.get(name)]
        if other:
            raise TrainError(f'"{folder}" is not read like "{folders[0]}": {", ".join(other)} of sparsity.json differ', 3)
    budget, named = (first["budget_tokens"], f'Budget of "{folders[0]}"') if read_budget is None else (read_budget, "--read-budget")
    PagePolicy("soft", budget, first["page_size"], first["lambda"], first["sink_pages"], first["recent_pages"]).check(named)
    how = dict(method=f"average of {len(folders)}: {first['trained'].get('method', 'unknown')}", models=[each["trained"] for each in found])
    return {**first, "budget_tokens": budget, "trained": how}


@torch.no_grad()
def average_models(folders: list[str]) -> PreTrainedModel:
    """A model in f32 on the CPU whose weights are the mean of those of all folders."""
    from .models import load_model

    total = load_model(folders[0], "cpu")
    sums = dict(total.named_parameters())  # tied weights once
    for folder in folders[1:]:
        weights = dict(load_model(folder, "cpu").named_parameters())
        other = [name for name in {**sums, **weights} if name not in sums or name not in weights or sums[name].shape != weights[name].shape]
        if other:
            raise TrainError(f'"{folder}" has another shape than "{folders[0]}": {other[0]}, and {len(other) - 1} more', 3)
        for name, tensor in sums.items():
            tensor += weights[name]
    for tensor in sums.values():
        tensor /= len(folders)
    return total


def main() -> None:
    options = parse()
    from .models import export, read_config, refuse_existing

    refuse_existing(options.out)
    for folder in options.model:
        read_config(folder)
    sparsity = average_sparsity(options.model, options.read_budget)
    export(average_models(options.model), options.model[0], options.out, sparsity=sparsity, shard_size=options.shard_size)
    say(f'Wrote "{options.out}", the average of {len(options.model)} models')


if __name__ == "__main__":
    run_main(main)
