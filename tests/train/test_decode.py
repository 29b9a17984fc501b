"""Reading token by token against the NumPy reference and against whole passes; rows and trials against what they promise."""

from __future__ import annotations

import argparse
import unittest
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import tiny
import torch
import unique_reference as numpy_reference
from support import random_heads
from train import batches, decode, episodes, evaluate, loop, mask_plan, models
from train.attention.policy import PagePolicy
from train.attention.transformers_attention import StepPages

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from train.decode import Prompt, Reader
    from train.episodes import Sampler


class Selection(unittest.TestCase):
    """Readers side by side, with a prompt of any length before the decoded tokens."""

    def read(self, readers: list[Reader], tokens: int, prompt: Prompt) -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
        """(out [readers, Hq, d], queries, keys, values as the reference takes them)"""
        queries, keys, values = random_heads(tokens, 1, 4, 2, tokens, 16)
        count = len(readers)
        reading = decode.SparseReading(decode.Prompt([(keys[:, :, :prompt], values[:, :, :prompt])]), readers)
        rows = [each.repeat(count, 1, 1, 1) for each in (queries[:, :, -1:], keys[:, :, prompt:], values[:, :, prompt:])]
        numbers = (tensor[0].transpose(0, 1).double().numpy() for tensor in (queries, keys, values))
        return reading.attend(0, *rows, 0.25)[:, :, 0], *numbers

    def test_outputs_are_those_of_the_reference(self) -> None:
        for tokens, prompt, budget, sink, recent in (
            (157, 150, 64, 1, 2),
            (160, 131, 40, 0, 1),
            (97, 96, 16, 1, 2),
            (97, 3, 40, 1, 2),
            (40, 30, 64, 1, 2),
        ):
            names = (("dense", 0.0), ("unique", 0.5), ("diag", 4.0), ("quest", 0.0), ("mean", 0.0), ("oracle", 0.0))
            readers = [decode.Reader(name, budget, lam, 8, sink, recent) for name, lam in names]
            out, q, k, v = self.read(readers, tokens, prompt)
            dense, mass = numpy_reference.attend(q[-1], k, v, 8)
            np.testing.assert_allclose(out[0], dense, atol=1e-5)
            for place, (name, _) in enumerate(names[1:], 1):
                if name == "oracle":
                    scores = mass.reshape(2, 2, -1).mean(1)
                else:
                    scores = numpy_reference.page_scores(q[-1], numpy_reference.page_statistics(k, 8), name)
                picks = numpy_reference.select_pages(scores, budget, 8, sink, recent)
                read = numpy_reference.attend(q[-1], k, v, 8, picks)[0]
                np.testing.assert_allclose(out[place], read, atol=1e-5, err_msg=f"{name} {tokens}")

    def test_budgets_beside_each_other_do_not_mix(self) -> None:
        readers = [decode.Reader(name, budget, 0.5) for budget in (32, 64, 96) for name in ("unique", "oracle")]
        together = self.read(readers, 157, 140)[0]
        for place, reader in enumerate(readers):
            torch.testing.assert_close(together[place : place + 1], self.read([reader], 157, 140)[0])

    def test_a_sliding_window_is_attended_to_whole(self) -> None:
        queries, keys, values = random_heads(8, 1, 4, 2, 60, 16)
        reading = decode.SparseReading(decode.Prompt([(keys[:, :, :50], values[:, :, :50])]), [decode.Reader("unique", 32, 0.5)])
        found = reading.attend(0, queries[:, :, -1:], keys[:, :, 50:], values[:, :, 50:], 0.25, 24)
        wanted = torch.nn.functional.scaled_dot_product_attention(
            queries[:, :, -1:], keys[:, :, -24:], values[:, :, -24:], scale=0.25, enable_gqa=True
        )
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


class Decoding(unittest.TestCase):
    """Decoding one token at a time must be what the masks of training mean."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.model = models.load_model(tiny.MODEL, "cpu").eval()
        cls.ids = torch.from_numpy(np.random.default_rng(3).integers(3, 500, (2, 90)))

    @torch.no_grad()
    def logits_of_pass(self, policy: PagePolicy) -> torch.Tensor:
        hidden = self.model.get_decoder()(input_ids=self.ids, use_cache=False, pages=StepPages(policy, False)).last_hidden_state
        return self.model.get_output_embeddings()(hidden)

    @torch.no_grad()
    def test_dense(self) -> None:
        found = decode.Prefix(self.model, self.ids[:, :70]).decode(self.ids[:, 70:], [decode.Reader("dense")])[0]
        torch.testing.assert_close(found, self.logits_of_pass(PagePolicy("none"))[:, 70:], atol=1e-4, rtol=1e-4)

    @torch.no_grad()
    def test_hard_mask(self) -> None:
        # Shorter than the budget up to there, so that both passes have the same keys.
        prefix = decode.Prefix(self.model, self.ids[:, :40])
        readers = [decode.Reader("dense"), decode.Reader("unique", 40, 0.5)]
        found = [prefix.decode(self.ids[:, 40:], readers)[1] for _ in range(2)]
        self.assertTrue(torch.equal(*found))
        torch.testing.assert_close(found[0], self.logits_of_pass(PagePolicy("hard", 40, 8))[:, 40:], atol=1e-4, rtol=1e-4)
        self.assertGreater((found[0] - self.logits_of_pass(PagePolicy("none"))[:, 40:]).abs().max().item(), 1e-3)


class Rows(unittest.TestCase):
    def sampler(self, seed: int = 1) -> tuple[Sampler, Tokenizer]:
        tokenizer = models.load_tokenizer(tiny.MODEL)
        return episodes.Sampler(np.arange(3, 5003, dtype=np.uint16) % 500, tokenizer, seed, 0.5), tokenizer

    def test_a_row_depends_on_seed_step_and_place_alone(self) -> None:
        one, other, third = self.sampler()[0], self.sampler()[0], self.sampler(2)[0]
        one.row(0, 0, 700)
        rows = [each.row(5, 3, 700) for each in (one, other, third)]
        np.testing.assert_array_equal(rows[0][0], rows[1][0])
        self.assertFalse(np.array_equal(rows[0][0], rows[2][0]))
        self.assertTrue(all(len(ids) == len(weights) == 700 for ids, weights in rows))

    def test_answers_weigh_most_and_repeat_what_was_stated(self) -> None:
        sampler, tokenizer = self.sampler()
        ids, weights = next(row for row in (sampler.row(1, place, 900) for place in range(20)) if row[1].max() > 1)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], weights == episodes.ANSWER_WEIGHT, [0]])))
        answer = tokenizer.decode(ids[edges[0] : edges[1]].tolist())
        self.assertRegex(answer, r"^ \d{4,6}\.\n\n$")
        answer = answer.strip(" .\n")
        self.assertGreaterEqual(tokenizer.decode(ids.tolist()).count(answer), 2)

    def test_an_answer_that_goes_on_with_a_digit_is_found_but_not_ended(self) -> None:
        tokenizer = self.sampler()[1]
        vocabulary, options = (
            tokenizer.get_vocab_size(),
            argparse.Namespace(readers=["dense", "unique"], budgets=[64], lam=None, page_size=8, trials=3, seed=1, batch=2),
        )

        class Repeats:
            """Says what it is given next; behind the answer the dense reader a digit, the other one a stop."""

            def __init__(self, *_: Any) -> None:
                pass

            def decode(self, ids: torch.Tensor, readers: list[Reader]) -> torch.Tensor:
                behind = [[tokenizer.token_to_id(token)] * len(ids) for token in "7."]
                echoed = torch.stack([torch.cat([ids[:, 1:], torch.tensor(last)[:, None]], 1) for last in behind])
                return torch.nn.functional.one_hot(echoed, vocabulary).float()

        with mock.patch.object(evaluate, "Prefix", Repeats):
            found = evaluate.measure_retrieval(None, "cpu", options, 1200, np.arange(9000) % 500, tokenizer)
        self.assertEqual(list(found.values()), [(3, 0), (3, 3)])

    def test_trials_end_with_the_answer_to_their_question(self) -> None:
        _, tokenizer = self.sampler()
        trial = episodes.draw_trial(1, 0, 1200, np.arange(9000) % 500, tokenizer)
        self.assertEqual(len(trial.ids), 1200 + trial.answer_tokens)
        text = tokenizer.decode(trial.ids.tolist())
        self.assertEqual(text.count("The code for the"), episodes.TRIAL_FACTS + 1)
        asked = tokenizer.decode(trial.ids[-trial.answer_tokens - trial.question_tokens :].tolist()).split("The code for the ")[1]
        self.assertEqual(text.count(f"The code for the {asked}"), 2, asked)

    def test_stages_follow_one_another_and_mixes_keep_their_shares(self) -> None:
        stages = batches.ContextPlan([64, 256], [3, 1], 8, 512, 1, mixed=False)
        self.assertEqual([stages.context(step) for step in range(8)], [64] * 6 + [256] * 2)
        self.assertEqual([stages.rows(0), stages.rows(7)], [8, 2])
        mixed = batches.ContextPlan([64, 256], [1, 1], 400, 512, 1, mixed=True)
        self.assertTrue(150 < sum(mixed.context(step) == 64 for step in range(400)) < 250)

    def test_temperature_and_rate(self) -> None:
        self.assertEqual([round(mask_plan.annealed(step, 10, 1.0, 0.1, 0.5), 4) for step in (0, 5, 9)], [1.0, 0.1, 0.1])
        shares = [loop.rate_share(step, 100, 10) for step in range(100)]
        self.assertTrue(shares[0] < shares[9] > shares[50] > shares[99] > 0.019)

    def test_intervals_hold_what_they_say(self) -> None:
        low, high = evaluate.wilson(90, 100)
        self.assertTrue(0.82 < low < 0.83 and 0.94 < high < 0.95)


if __name__ == "__main__":
    unittest.main()
