"""Batches by step number, drawn ahead by threads: tokenizers work outside Python's lock."""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from .errors import TrainError


class ContextPlan:
    """Which context every step takes: stages, one after another, or several mixed by a draw of the step's number.

    Every step has about the same tokens, so a long context means fewer rows.
    """

    def __init__(self, contexts, shares, steps, tokens_per_step, seed, mixed):
        self.contexts, self.steps, self.tokens_per_step, self.seed, self.mixed = contexts, steps, tokens_per_step, seed, mixed
        self.bounds = np.cumsum(shares) / np.sum(shares)

    def context(self, step):
        share = np.random.default_rng([self.seed, 77, step]).random() if self.mixed else (step + 0.5) / self.steps
        return self.contexts[min(int(np.searchsorted(self.bounds, share, "right")), len(self.contexts) - 1)]

    def rows(self, step):
        return max(1, self.tokens_per_step // self.context(step))


class Batches:
    """batch(step) -> (ids [B, n], targets [B, n], weights [B, n]) on the device."""

    def __init__(self, sampler, plan, device, workers=12, ahead=4):
        if len(sampler.tokens) <= max(plan.contexts):
            raise TrainError(f"The data has {len(sampler.tokens)} tokens, wanted more than a context of {max(plan.contexts)}", 3)
        self.sampler, self.plan, self.device, self.ahead = sampler, plan, device, ahead
        self.pool, self.pending = ThreadPoolExecutor(workers), {}

    def _submit(self, step):
        if step not in self.pending and step < self.plan.steps:
            length = self.plan.context(step) + 1
            self.pending[step] = [self.pool.submit(self.sampler.row, step, place, length) for place in range(self.plan.rows(step))]

    def batch(self, step):
        for near in range(step, step + 1 + self.ahead):
            self._submit(near)
        rows = [row.result() for row in self.pending.pop(step)]
        ids, weights = (torch.from_numpy(np.stack(part)) for part in zip(*rows))
        if self.device.type == "cuda":
            ids, weights = ids.pin_memory(), weights.pin_memory()
        ids, weights = ids.to(self.device, non_blocking=True), weights.to(self.device, non_blocking=True)
        return ids[:, :-1], ids[:, 1:], weights[:, 1:]

    def close(self):
        self.pool.shutdown(cancel_futures=True)
