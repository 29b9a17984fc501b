"""Times tiles of the kernels on this GPU, one kernel after another, and prints the fastest, for TILES in fused.py.

    python -m train.attention.tune [--head-dim 64] [--tokens 32768] [--rounds 5]

Each kernel is timed in the pass that launches it, forward or backward, with the other kernels unchanged; later kernels use the fastest
tile.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable

import torch
import triton

from ..bench import random_heads, seconds_of
from . import fused
from .policy import PagePolicy
from .reference import page_statistics

# (queries, keys or pages), warps, pipeline stages.
SHAPES = {
    "forward": ((128, 64), (128, 128), (64, 64), (64, 128)),
    "query_grad": ((128, 64), (64, 64), (64, 128), (128, 128)),
    "key_grad": ((64, 128), (64, 64), (128, 64), (128, 128), (32, 128)),
    "score": ((64, 64), (128, 64), (64, 128), (128, 32)),
}
WARPS, STAGES = (4, 8), (2, 3)


class Passes:
    """A forward and a backward pass of one layer's soft mask."""

    def __init__(self, options: argparse.Namespace) -> None:
        policy = PagePolicy("soft", options.budget).check("--budget")
        inputs = random_heads(torch.device("cuda"), torch.bfloat16, 1, 8, 2, options.tokens, options.head_dim)
        mean, std = page_statistics(inputs[1], policy.page_size)
        choice = [policy.budget_tokens, policy.page_size, policy.sink_pages, policy.recent_pages]
        self.leaves = *inputs[:3], mean.to(torch.bfloat16), std, torch.tensor(0.3)
        self.out_grad, self.settings = inputs[3], ("soft", choice, policy.lam, options.head_dim**-0.5, fused.SCRATCH_BYTES)
        self.results = self.forward()

    def forward(self) -> tuple[torch.Tensor, ...]:
        return fused.soft_mask_forward(*self.leaves, *self.settings)

    def backward(self) -> list[torch.Tensor]:
        return fused.soft_mask_backward(*self.leaves, *self.results, self.out_grad, *self.settings)


def median_seconds(work: Callable[[], object], rounds: int) -> float | None:
    """None if the tile does not fit into a multiprocessor."""
    try:
        work()
    except triton.runtime.errors.OutOfResources:
        return None
    return statistics.median(seconds_of(work) for _ in range(rounds))


def tune(name: str, passes: Passes, options: argparse.Namespace) -> None:
    """Tries all tiles of a kernel and keeps the fastest in fused.TILES."""
    work, times = passes.backward if name.endswith("grad") else passes.forward, {}
    for (queries, others), warps, stages in itertools.product(SHAPES[name], WARPS, STAGES):
        tile = fused.TILES[name][options.head_dim] = queries, others, warps, stages
        times[tile] = median_seconds(work, options.rounds)
    best = min((tile for tile, seconds in times.items() if seconds is not None), key=times.get)
    fused.TILES[name][options.head_dim] = best
    for tile, seconds in sorted(times.items(), key=lambda pair: pair[1] or 9):
        print(f"{name:10} {str(tile):20} {'does not fit' if seconds is None else f'{seconds * 1e3:.2f} ms'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--budget", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    passes = Passes(options)
    for name in SHAPES:
        tune(name, passes, options)
    print({name: fused.TILES[name][options.head_dim] for name in SHAPES})


if __name__ == "__main__":
    main()
