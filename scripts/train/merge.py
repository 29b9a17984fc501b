"""Writes a model with a LoRA adapter merged into its weights.

    python -m train.merge --model DIR --adapter DIR --out DIR

`pagesift generate --adapter` merges while it loads; this is for other tools, and for train.evaluate.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import make_parser
from .average import read_sparsity
from .errors import run_main
from .loop import say


def parse() -> argparse.Namespace:
    parser = make_parser("merge", __doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face model folder that the adapter belongs to")
    parser.add_argument("--adapter", required=True, metavar="DIR", help="folder from train.finetune --lora")
    parser.add_argument("--out", required=True, metavar="DIR", help="model folder to write")
    parser.add_argument("--shard-size", default="4GB", help="largest weight file")
    return parser.parse_args()


def main() -> None:
    options = parse()
    from .lora import merge_adapter
    from .models import export, load_model, refuse_existing

    refuse_existing(options.out)
    model = load_model(options.model, "cpu")
    merge_adapter(model, Path(options.adapter))
    export(model, options.model, options.out, sparsity=read_sparsity(options.adapter), shard_size=options.shard_size)
    say(f'Wrote "{options.out}"')


if __name__ == "__main__":
    run_main(main)
