"""What the tests of training share."""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "fixtures")]

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which PyTorch may do
import torch  # noqa: E402


def random_heads(seed, batch=1, heads=4, kv_heads=2, tokens=96, dim=16, dtype=torch.float32):
    """Queries [B, Hq, n, d], keys and values [B, Hk, n, d]; neighbouring keys resemble each other, as those of text do."""
    draw = torch.Generator().manual_seed(seed)
    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)
    keys = (normal(batch, kv_heads, tokens, dim) * 0.15).cumsum(2) + normal(batch, kv_heads, tokens, dim) * 0.7
    queries, values = normal(batch, heads, tokens, dim) * 1.2, normal(batch, kv_heads, tokens, dim)
    return [tensor.to(dtype) for tensor in (queries, keys, values)]


def with_gradients(attention, inputs, weights):
    """Output of `attention(*inputs)`, and the gradients of its product with `weights`."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    out = attention(*leaves)
    (out * weights).sum().backward()
    return out.detach(), [leaf.grad for leaf in leaves]


def relative_error(found, wanted):
    """Largest difference over the largest wanted number."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
