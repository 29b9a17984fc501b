"""What the tests of training share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "fixtures")]

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which PyTorch may do
import torch  # noqa: E402


def random_heads(
    seed: int, batch: int = 1, heads: int = 4, kv_heads: int = 2, tokens: int = 96, dim: int = 16, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Queries [B, Hq, n, d], keys and values [B, Hk, n, d]; neighbouring keys resemble each other, as those of text do."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    keys = (normal(batch, kv_heads, tokens, dim) * 0.15).cumsum(2) + normal(batch, kv_heads, tokens, dim) * 0.7
    queries, values = normal(batch, heads, tokens, dim) * 1.2, normal(batch, kv_heads, tokens, dim)
    return [tensor.to(dtype) for tensor in (queries, keys, values)]


def with_gradients(
    attention: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], weights: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output of `attention(*inputs)`, and the gradients of its product with `weights`."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    out = attention(*leaves)
    (out * weights).sum().backward()
    return out.detach(), [leaf.grad for leaf in leaves]


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest wanted number."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
