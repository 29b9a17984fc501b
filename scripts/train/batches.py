"""Batches by step number, which worker processes draw ahead."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from .errors import TrainError

if TYPE_CHECKING:
    from .episodes import Sampler


class ContextPlan:
    """Which context every step takes: stages, one after another, or several mixed by a draw of the step's number.

    Every step has about the same tokens, so a long context means fewer rows.
    """

    def __init__(self, contexts: list[int], shares: list[float], steps: int, tokens_per_step: int, seed: int, mixed: bool) -> None:
        self.contexts, self.steps, self.tokens_per_step, self.seed, self.mixed = contexts, steps, tokens_per_step, seed, mixed
        self.bounds = np.cumsum(shares) / np.sum(shares)

    def context(self, step: int) -> int:
        share = np.random.default_rng([self.seed, 77, step]).random() if self.mixed else (step + 0.5) / self.steps
        return self.contexts[min(int(np.searchsorted(self.bounds, share, "right")), len(self.contexts) - 1)]

    def rows(self, step: int) -> int:
        return max(1, self.tokens_per_step // self.context(step))


class Batches:
    """batch(step) -> (ids [B, n], targets [B, n], weights [B, n]) on the device.

    Processes draw whole steps ahead if a GPU would wait for them: threads would compete for Python's lock with the one that launches
    kernels. `workers` is their number; 0 draws on demand in this process. Default: 8 with a GPU, otherwise none.
    """

    def __init__(self, sampler: Sampler, plan: ContextPlan, device: torch.device, workers: int | None = None, ahead: int = 16) -> None:
        if len(sampler.tokens) <= max(plan.contexts):
            raise TrainError(f"The data has {len(sampler.tokens)} tokens, expected more than a context of {max(plan.contexts)}", 3)
        self.sampler, self.plan, self.device, self.ahead, self.pending = sampler, plan, device, ahead, {}
        workers = (8 if device.type == "cuda" else 0) if workers is None else workers
        self.pool = None
        if workers > 0:  # spawned, because a process that uses a GPU cannot be forked
            self.pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker, (sampler, plan))

    def _drawn(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        if self.pool is None:
            return draw(self.sampler, self.plan, step)
        for near in range(step, min(step + 1 + self.ahead, self.plan.steps)):
            if near not in self.pending:
                self.pending[near] = self.pool.submit(_draw_in_worker, near)
        return self.pending.pop(step).result()

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids, weights = map(torch.from_numpy, self._drawn(step))
        if self.device.type == "cuda":
            ids, weights = ids.pin_memory(), weights.pin_memory()
        ids, weights = ids.to(self.device, non_blocking=True), weights.to(self.device, non_blocking=True)
        return ids[:, :-1], ids[:, 1:], weights[:, 1:]

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def draw(sampler: Sampler, plan: ContextPlan, step: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids [B, n + 1], weights [B, n + 1]) of a step."""
    length = plan.context(step) + 1
    return tuple(map(np.stack, zip(*(sampler.row(step, place, length) for place in range(plan.rows(step))), strict=True)))


_of_worker = ()


def _begin_worker(sampler: Sampler, plan: ContextPlan) -> None:
    global _of_worker
    _of_worker = sampler, plan
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers


def _draw_in_worker(step: int) -> tuple[np.ndarray, np.ndarray]:
    return draw(*_of_worker, step)
