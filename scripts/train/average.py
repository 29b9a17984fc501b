"""Averages the weights of models that were fine-tuned from one base (model soups, Wortsman et al. 2022, arXiv 2203.05482).

    python -m train.average --model DIR DIR... --out DIR

A folder that is named twice counts twice. Sums in f32, in the order given, so the same command writes the same bytes. Models that are
read by different pages (page size, scorer, lambda, forced pages) have no average.
"""
import json
from pathlib import Path

import torch

from .arguments import make_parser
from .errors import TrainError, run_main
from .loop import say

# What must be equal: what a page and its score are. Budgets may differ, they are only how many are read.
SAME_READING = ("page_size", "scorer", "lambda", "sink_pages", "recent_pages")


def parse():
    parser = make_parser("average", __doc__)
    parser.add_argument("--model", nargs="+", required=True, metavar="DIR", help="Hugging Face model folders of one shape")
    parser.add_argument("--out", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--read-budget", type=int, metavar="TOKENS", help="the budget that sparsity.json names, default the first model's")
    parser.add_argument("--shard-size", default="4GB", help="largest weight file")
    return parser.parse_args()


def read_sparsity(folder):
    """Content of sparsity.json; None where a model has none."""
    file = Path(folder) / "sparsity.json"
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainError(f'Cannot read "{file}": {error}', 3) from error
    missing = [name for name in ("budget_tokens", "page_size", "trained") if not isinstance(content, dict) or name not in content]
    if missing:
        raise TrainError(f'"{file}" lacks {", ".join(missing)}', 3)
    return content


def average_sparsity(folders, read_budget):
    """Content of the average's sparsity.json: how it is read, and how each model was trained. None where no model has one."""
    found = [read_sparsity(folder) for folder in folders]
    if not any(found):
        return None
    first = found[0] or {}
    for folder, each in zip(folders, found):
        other = [name for name in SAME_READING if each is None or each.get(name) != first.get(name)]
        if other:
            raise TrainError(f'"{folder}" is not read like "{folders[0]}": {", ".join(other)} of sparsity.json differ', 3)
    budget = first["budget_tokens"] if read_budget is None else read_budget
    if budget < 1 or budget % first["page_size"] != 0:
        raise TrainError(f"--read-budget is {budget} tokens, wanted a multiple of the page size {first['page_size']}")
    how = dict(method=f"average of {len(folders)}: {found[0]['trained'].get('method', 'unknown')}", models=[each["trained"] for each in found])
    return {**first, "budget_tokens": budget, "trained": how}


@torch.no_grad()
def average_models(folders):
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


def main():
    options = parse()
    from .models import export, refuse_existing
    refuse_existing(options.out)
    sparsity = average_sparsity(options.model, options.read_budget)
    export(average_models(options.model), options.model[0], options.out, sparsity=sparsity, shard_size=options.shard_size)
    say(f'Wrote "{options.out}", the average of {len(options.model)} models')


if __name__ == "__main__":
    run_main(main)
