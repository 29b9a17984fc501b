"""Batches that processes draw ahead."""

from __future__ import annotations

import unittest

import numpy as np
import support  # noqa: F401  (puts the package on the path)
import torch
from tiny import MODEL
from train import models
from train.batches import Batches, ContextPlan
from train.episodes import Sampler


class Ahead(unittest.TestCase):
    def batches(self, workers: int | None) -> Batches:
        sampler = Sampler(np.arange(3, 503, dtype=np.uint16), models.load_tokenizer(MODEL), 1, 0.5)
        return Batches(sampler, ContextPlan([64, 128], [1, 1], 6, 256, 1, mixed=True), torch.device("cpu"), workers, ahead=3)

    def test_processes_draw_what_one_process_draws(self) -> None:
        alone, ahead = self.batches(0), self.batches(2)
        for step in (0, 1, 5):
            for one, other in zip(alone.batch(step), ahead.batch(step), strict=True):
                self.assertTrue(torch.equal(one, other), step)
        ahead.close()


if __name__ == "__main__":
    unittest.main()
