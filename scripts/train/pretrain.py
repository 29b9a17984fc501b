"""Trains the small default model, from fresh weights or from those of a folder.

    python -m train.pretrain --tokenizer DIR --data FILE... --steps N --out DIR [--init DIR]

Contexts grow in stages. The shape is that of a model of 8.4 M parameters, 17 MB in bf16; --config names another config.json.
Held-out books (--held-out) are never trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_run_arguments, check_run, loop_options, make_batches, make_parser, make_plan, run_settings, stages_of
from .checkpoint import Checkpoint, read_json
from .errors import run_main
from .loop import Loop, be_deterministic, compile_layers, pick_device, say
from .regularize import add_dropout, run_whole

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


STAGES = ("2048:0.45", "8192:0.25", "16384:0.15", "32768:0.15")
SHAPE = dict(
    model_type="qwen3",
    attention_bias=False,
    bos_token_id=None,
    eos_token_id=0,
    pad_token_id=None,
    head_dim=64,
    hidden_act="silu",
    hidden_size=256,
    intermediate_size=768,
    max_position_embeddings=32768,
    num_attention_heads=8,
    num_hidden_layers=8,
    num_key_value_heads=2,
    rms_norm_eps=1e-6,
    rope_parameters=dict(rope_type="default", rope_theta=500000.0),
    tie_word_embeddings=True,
    use_sliding_window=False,
)
LARGEST_BYTES = 20_000_000


def parse() -> argparse.Namespace:
    parser = make_parser("pretrain", __doc__)
    parser.add_argument("--tokenizer", required=True, metavar="DIR", help="model folder whose tokenizer files are used")
    parser.add_argument("--init", metavar="DIR", help="start from the weights of this model folder")
    parser.add_argument("--config", metavar="FILE", help="config.json of another shape")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), metavar="CONTEXT:SHARE", help=f"default {' '.join(STAGES)}")
    add_run_arguments(parser, rate=3e-3, tokens_per_step=131072)
    return parser.parse_args()


def start_model(options: argparse.Namespace, vocab_size: int, device: torch.device) -> tuple[PreTrainedModel, int]:
    """(model, longest context)"""
    from .models import create_model, load_model, read_config

    if options.init:
        return load_model(options.init, device), read_config(options.init)["max_position_embeddings"]
    shape = read_json(options.config) if options.config else SHAPE
    model = create_model({**shape, "vocab_size": vocab_size}, device, options.seed)
    scale_residuals(model)
    return model, shape["max_position_embeddings"]


def scale_residuals(model: PreTrainedModel) -> None:
    """Initialises weights by fan-in; those that write to the residual stream are divided by the root of the number of writes."""
    layers = model.config.num_hidden_layers
    for name, tensor in model.named_parameters():
        if tensor.dim() == 2 and "embed" not in name and "lm_head" not in name:
            writes = name.endswith(("o_proj.weight", "down_proj.weight"))
            tensor.data.normal_(std=(tensor.shape[1] * (2 * layers if writes else 1)) ** -0.5)


def main() -> None:
    options = parse()
    contexts, shares = stages_of(options.stages)
    from .models import export, load_tokenizer, refuse_existing

    refuse_existing(options.out)
    be_deterministic(not options.nondeterministic)
    device = pick_device(options.device)
    tokenizer = load_tokenizer(options.tokenizer)
    model, longest = start_model(options, tokenizer.get_vocab_size(), device)
    check_run(options, contexts, longest)
    count = sum(tensor.numel() for tensor in model.parameters())
    say(f"{count / 1e6:.1f} M parameters, {2 * count / 1e6:.1f} MB in bf16")
    if 2 * count > LARGEST_BYTES:
        say(f"Warning: more than the {LARGEST_BYTES / 1e6:.0f} MB limit of the default model")
    batches, held_out = make_batches(options, make_plan(options, contexts, shares, mixed=False), tokenizer, device, options.tokenizer)
    dropout = add_dropout(model, options.dropout)
    if device.type == "cuda" and not options.no_compile:
        compile_layers(model)
    run_folder = Path(options.out + ".run")
    loop = Loop(model, batches, Checkpoint(run_folder, run_settings(options, "init", "config", "stages")), loop_options(options))
    if not run_whole(loop, dropout, held_out):
        return say(f'Paused; the same command continues from "{run_folder}"')
    export(model, options.tokenizer, options.out, run_folder, shard_size=options.shard_size)
    say(f'Wrote "{options.out}"')


if __name__ == "__main__":
    run_main(main)
