"""The eager reference against the normative NumPy one, query by query, and its gradients against finite differences."""

from __future__ import annotations

import itertools
import unittest
from typing import Any

import numpy as np
import torch
import unique_reference as numpy_reference
from support import random_heads, with_gradients
from train.attention import reference
from train.attention.policy import LAMBDAS, PagePolicy
from train.errors import TrainError

CASES = [  # tokens, query heads, KV heads, budget, page size, sink, recent
    (150, 4, 2, 64, 8, 1, 2),
    (97, 2, 2, 40, 8, 0, 1),
    (133, 6, 2, 64, 16, 1, 1),
    (60, 4, 1, 512, 8, 1, 2),
]


def last_query(case: tuple[Any, ...], seed: int, scorer: str = "unique") -> tuple[list[torch.Tensor], list[np.ndarray], PagePolicy]:
    """Keys, values and queries of a case in f64 as [n, H, d] arrays of NumPy, and the policy."""
    tokens, heads, kv_heads, budget, page_size, sink, recent = case
    inputs = random_heads(seed, 1, heads, kv_heads, tokens, 16, torch.float64)
    policy = PagePolicy("hard", budget, page_size, LAMBDAS[scorer], sink, recent, scorer).check()
    return inputs, [tensor[0].transpose(0, 1).numpy() for tensor in inputs], policy


class AgainstNumpy(unittest.TestCase):
    def test_hard_mask_reads_the_pages_that_decoding_reads(self) -> None:
        for (seed, case), scorer in itertools.product(enumerate(CASES), LAMBDAS):
            inputs, (q, k, v), policy = last_query(case, seed, scorer)
            out = reference.soft_mask_attention(*inputs, policy, 1.0)[0].transpose(0, 1).numpy()
            for t in range(case[0]):
                stats = numpy_reference.page_statistics(k[: t + 1], policy.page_size)
                scores = numpy_reference.page_scores(q[t], stats, scorer, policy.lam)
                picks = numpy_reference.select_pages(scores, policy.budget_tokens, policy.page_size, policy.sink_pages, policy.recent_pages)
                wanted, _ = numpy_reference.attend(q[t], k[: t + 1], v[: t + 1], policy.page_size, picks)
                np.testing.assert_allclose(out[t], wanted, atol=1e-10, err_msg=f"{scorer}, case {case}, query {t}")

    def test_statistics_and_scores(self) -> None:
        (queries, keys, _), (q, k, _), policy = last_query(CASES[0], 7)
        mean, std = reference.page_statistics(keys, 8)
        stats = numpy_reference.page_statistics(k[:144], 8)
        np.testing.assert_allclose(mean[0].transpose(0, 1), stats["mean"], atol=1e-12)
        np.testing.assert_allclose(std[0].T, stats["std"], atol=1e-12)
        scores = reference.page_scores(queries, mean, std, 0.75)[0, :, 149]
        np.testing.assert_allclose(scores, numpy_reference.page_scores(q[149], stats, "unique", 0.75), atol=1e-12)

    def test_variances_and_diag_scores(self) -> None:
        (queries, keys, _), (q, k, _), _ = last_query(CASES[0], 7)
        mean, var = reference.page_statistics(keys, 8, "diag")
        stats = numpy_reference.page_statistics(k[:144], 8)
        np.testing.assert_allclose(var[0].transpose(0, 1), stats["var"], atol=1e-12)
        scores = reference.page_scores(queries, mean, var, 1.5)[0, :, 149]
        np.testing.assert_allclose(scores, numpy_reference.page_scores(q[149], stats, "diag", 1.5), atol=1e-12)


class Gates(unittest.TestCase):
    def gates(self, mask: str, temperature: torch.Tensor) -> tuple[PagePolicy, torch.Tensor, torch.Tensor, torch.Tensor]:
        queries, keys, _ = random_heads(3, tokens=160, dtype=torch.float64)
        policy = PagePolicy(mask, 64, 8).check()
        scores = reference.page_scores(queries, *reference.page_statistics(keys, 8), 0.5)
        candidates = reference.candidate_pages(160, 20, policy, "cpu")
        theta = reference.cut_of(scores, candidates, policy.ranked_pages)
        return policy, scores, theta, reference.log_gate(scores, theta, candidates, mask, temperature)

    def test_the_cut_is_midway_between_the_last_taken_and_the_first_left(self) -> None:
        policy, scores, theta, _ = self.gates("soft", 1.0)
        ranked = scores[0, 1, 159, 1:18].sort(descending=True).values
        k = policy.ranked_pages
        self.assertEqual(theta[0, 1, 159].item(), ((ranked[k - 1] + ranked[k]) / 2).item())

    def test_forced_pages_and_short_prefixes_pass_untouched(self) -> None:
        _, _, theta, gate = self.gates("soft", 1.0)
        self.assertEqual(gate[:, :, :64].abs().max().item(), 0)
        self.assertTrue(theta[:, :, :64].isneginf().all())
        self.assertEqual(gate[0, :, 159, [0, 18, 19]].abs().max().item(), 0)
        self.assertTrue((gate[0, :, 159, 1:18] < 0).all())

    def test_a_cold_soft_gate_is_the_hard_one(self) -> None:
        soft, hard = self.gates("soft", 1e-6)[3].exp(), self.gates("hard", 1.0)[3].exp()
        self.assertTrue(0 < hard.mean().item() < 1)
        torch.testing.assert_close(soft, hard, atol=1e-6, rtol=0)

    def test_policies_that_decoding_would_read_otherwise_are_refused(self) -> None:
        for wrong, part in (
            (dict(budget_tokens=60), "multiple of the page size 8"),
            (dict(page_size=12), "one of"),
            (dict(budget_tokens=24), "at least 32"),
            (dict(mask="firm"), "soft, hard, none"),
        ):
            with self.assertRaisesRegex(TrainError, part):
                PagePolicy(**wrong).check()


class MovingCut(unittest.TestCase):
    def test_raising_all_scores_of_a_query_changes_nothing(self) -> None:
        queries, keys, _ = random_heads(3, tokens=160, dtype=torch.float64)
        policy = PagePolicy("soft", 64, 8).check()
        scores = reference.page_scores(queries, *reference.page_statistics(keys, 8), 0.5).detach().requires_grad_()
        candidates = reference.candidate_pages(160, 20, policy, "cpu")
        theta = reference.moving_cut(scores, reference.cut_of(scores, candidates, policy.ranked_pages), candidates, 0.5)
        gates = reference.log_gate(scores, theta, candidates, "soft", 0.5)
        (gates * torch.randn(gates.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).sum().backward()
        self.assertGreater(scores.grad.abs().max().item(), 0.1)
        self.assertLess(scores.grad.sum(-1).abs().max().item(), 1e-12)


class FiniteDifferences(unittest.TestCase):
    def test_gradients_of_queries_keys_and_values(self) -> None:
        for scorer, lam in LAMBDAS.items():
            with self.subTest(scorer):
                self.compare(PagePolicy("soft", 40, 8, lam, scorer=scorer).check())

    def compare(self, policy: PagePolicy) -> None:
        inputs = random_heads(5, 1, 4, 2, 72, 8, torch.float64)
        weights = random_heads(8, 1, 4, 2, 72, 8, torch.float64)[0]
        scores = reference.page_scores(inputs[0], *reference.page_statistics(inputs[1], 8, policy.scorer), policy.lam) * 8**-0.5
        theta = reference.cut_of(scores, reference.candidate_pages(72, 9, policy, "cpu"), policy.ranked_pages)
        attention = lambda *x: reference.soft_mask_attention(*x, policy, 0.5, theta=theta)  # noqa: E731
        _, gradients = with_gradients(attention, inputs, weights)
        draw, step = torch.Generator().manual_seed(9), 1e-6
        for place in range(3):
            for _ in range(5):
                way = torch.randn(inputs[place].shape, generator=draw, dtype=torch.float64)
                ends = [attention(*[x + sign * step * way if i == place else x for i, x in enumerate(inputs)]) for sign in (1, -1)]
                slope = ((ends[0] - ends[1]) * weights).sum().item() / (2 * step)
                self.assertAlmostEqual((gradients[place] * way).sum().item(), slope, delta=1e-5 * max(1, abs(slope)))

    def test_scores_pull_at_keys_beyond_what_logits_do(self) -> None:
        inputs = random_heads(6, 1, 2, 1, 80, 8)
        weights = torch.randn(1, 2, 80, 8)
        policies = PagePolicy("soft", 32, 8).check(), PagePolicy("none", 32, 8).check()
        (_, soft), (_, none) = (
            with_gradients(lambda *x, p=policy: reference.soft_mask_attention(*x, p, 0.5), inputs, weights) for policy in policies
        )
        self.assertGreater((soft[1] - none[1]).abs().max().item(), 0.01)


if __name__ == "__main__":
    unittest.main()
