"""Batches that processes draw ahead."""
import unittest

import support  # noqa: F401  (puts the package on the path)
import numpy as np
import torch
from tiny import MODEL
from train import models
from train.batches import Batches, ContextPlan
from train.episodes import Sampler, is_prose_step


class Kinds(unittest.TestCase):
    def weights(self, **settings):
        sampler = Sampler(np.arange(3, 5003, dtype=np.uint16) % 500, models.load_tokenizer(MODEL), 1, 0.5, **settings)
        return [[sampler.row(step, place, 1024)[1] for place in range(3)] for step in range(40)]

    def test_whole_steps_are_all_prose_or_all_episodes(self):
        kinds = [{weights.max() > 1 for weights in rows} for rows in self.weights(whole_steps=True)]
        self.assertEqual([len(kind) for kind in kinds], [1] * 40)
        self.assertEqual([kind == {False} for kind in kinds], [is_prose_step(1, step, 0.5) for step in range(40)])
        self.assertIn({False, True}, [{weights.max() > 1 for weights in rows} for rows in self.weights()])

    def test_filler_weight_changes_the_prose_of_episodes_alone(self):
        for plain, weighed in zip(self.weights(), self.weights(filler_weight=0.25)):
            for before, after in zip(plain, weighed):
                # A fact's own words weigh 1 as well, so what changed are targets of 1, and prose without facts keeps its weights.
                self.assertEqual(set(before[before != after]), {1.0} if before.max() > 1 else set())
                self.assertEqual(set(after[before != after]), {0.25} if before.max() > 1 else set())


class Ahead(unittest.TestCase):
    def batches(self, workers):
        sampler = Sampler(np.arange(3, 503, dtype=np.uint16), models.load_tokenizer(MODEL), 1, 0.5)
        return Batches(sampler, ContextPlan([64, 128], [1, 1], 6, 256, 1, mixed=True), torch.device("cpu"), workers, ahead=3)

    def test_processes_draw_what_one_process_draws(self):
        alone, ahead = self.batches(0), self.batches(2)
        for step in (0, 1, 5):
            for one, other in zip(alone.batch(step), ahead.batch(step)):
                self.assertTrue(torch.equal(one, other), step)
        ahead.close()


if __name__ == "__main__":
    unittest.main()
