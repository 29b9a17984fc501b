"""The Triton kernels, run by Triton's interpreter on the CPU, against the eager reference: outputs and gradients."""

import unittest
from typing import Any
from unittest import mock

import torch
from support import random_heads, relative_error, with_gradients
from train.attention.policy import PagePolicy
from train.attention.reference import soft_mask_attention

try:
    from train.attention import fused
except ImportError:
    fused = None


@unittest.skipIf(fused is None, "Triton is not installed")
class AgainstReference(unittest.TestCase):
    def compare(
        self,
        policy: PagePolicy,
        shape: tuple[int, ...],
        temperature: torch.Tensor,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        scratch_bytes: int = 1,
    ) -> dict[str, float]:
        inputs = random_heads(seed, *shape, dtype=dtype)
        weights = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(dtype)
        wide = [tensor.float() for tensor in inputs]
        wanted = with_gradients(lambda *x: soft_mask_attention(*x, policy, temperature), wide, weights.float())
        found = with_gradients(
            lambda *x: fused.fused_soft_mask_attention(*x, policy, temperature, scratch_bytes=scratch_bytes), inputs, weights
        )
        pairs = zip(["out", "queries", "keys", "values"], [found[0], *found[1]], [wanted[0], *wanted[1]], strict=True)
        return {name: relative_error(one.float(), other) for name, one, other in pairs}

    def check(self, *arguments: object, tolerance: float = 1e-4, **more: Any) -> None:
        for name, error in self.compare(*arguments, **more).items():
            self.assertLess(error, tolerance, f"{name} of {arguments}")

    def test_soft_mask_with_groups_over_three_chunks(self) -> None:
        with mock.patch.object(fused, "FEWEST_CHUNK_TOKENS", 32):
            self.check(PagePolicy("soft", 32, 8).check(), (1, 4, 2, 77, 16), 0.5)

    def test_tiles_below_the_diagonal_on_it_and_cut_short(self) -> None:
        # Tiles of 32 by 32: chunks of 128 and 71 queries have all three kinds, in both directions.
        self.check(PagePolicy("soft", 32, 8).check(), (1, 2, 1, 199, 16), 0.5, seed=6)

    def test_soft_mask_with_other_pages_and_forced_pages(self) -> None:
        self.check(PagePolicy("soft", 48, 16, 1.0, 0, 1).check(), (2, 2, 1, 84, 16), 0.2, seed=1)

    def test_hard_mask(self) -> None:
        self.check(PagePolicy("hard", 32, 8).check(), (1, 2, 1, 60, 16), 1.0, seed=2)

    def test_soft_mask_by_variances_with_groups_over_three_chunks(self) -> None:
        with mock.patch.object(fused, "FEWEST_CHUNK_TOKENS", 32):
            self.check(PagePolicy("soft", 32, 8, 2.0, scorer="diag").check(), (1, 4, 2, 77, 16), 0.5, seed=7)

    def test_hard_mask_by_variances(self) -> None:
        self.check(PagePolicy("hard", 32, 8, 2.0, scorer="diag").check(), (1, 2, 1, 60, 16), 1.0, seed=2)

    def test_a_budget_that_covers_all_is_dense(self) -> None:
        inputs = random_heads(3, 1, 2, 1, 60, 16)
        found = fused.fused_soft_mask_attention(*inputs, PagePolicy("soft", 128, 8).check(), 0.1)
        dense = torch.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
        torch.testing.assert_close(found, dense, atol=1e-5, rtol=1e-5)

    def test_numbers_of_16_bits(self) -> None:
        # The interpreter multiplies f16 but not bf16, which `train.bench --check` compares on a GPU.
        self.check(PagePolicy("soft", 32, 8).check(), (1, 2, 1, 60, 16), 1.0, seed=4, dtype=torch.float16, tolerance=1e-2)

    def test_equal_scores_leave_a_finite_cut(self) -> None:
        queries, keys, values = random_heads(5, 1, 2, 1, 56, 16)
        keys[:] = keys[:, :, :1]
        for policy in (PagePolicy("soft", 32, 8).check(), PagePolicy("soft", 32, 8, 2.0, scorer="diag").check()):
            found = fused.fused_soft_mask_attention(queries, keys, values, policy, 0.1)
            torch.testing.assert_close(found, soft_mask_attention(queries, keys, values, policy, 0.1), atol=1e-4, rtol=1e-4)

    def test_chunks_keep_their_scratch(self) -> None:
        for batch, heads, tokens in ((1, 8, 32768), (8, 32, 16384), (64, 8, 2048)):
            size = fused.chunk_tokens(batch, heads, tokens, 8)
            self.assertEqual(size % fused.FEWEST_CHUNK_TOKENS, 0)
            needed = batch * heads * size * (tokens // 8 + 1) * 4
            self.assertTrue(needed <= fused.SCRATCH_BYTES or size == fused.FEWEST_CHUNK_TOKENS)


if __name__ == "__main__":
    unittest.main()
