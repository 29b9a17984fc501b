"""What each step of a run reads: one of the budgets, or everything; and how soft the mask is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .attention.transformers_attention import StepPages

if TYPE_CHECKING:
    from .attention.policy import PagePolicy


def annealed(step: int, steps: int, first: float, last: float, share: float) -> float:
    """Temperature: from `first` to `last` by equal ratios over a share of the steps, then `last`."""
    done = min(1.0, step / max(1, share * steps))
    return first * (last / first) ** done


class MaskPlan:
    """Draws depend only on the step's number, so all masks and resumed runs draw the same.

    `policies` differ in their budgets, each with the same number of steps; `dense_share` of the steps have no mask. `temperature` is
    (first, last), in logits, and `anneal` the share of the steps until the last one.
    """

    def __init__(
        self,
        policies: list[PagePolicy],
        fused: bool,
        seed: int,
        steps: int,
        dense_share: float = 0.0,
        temperature: tuple[float, float] = (1.0, 1.0),
        anneal: float = 0.0,
    ) -> None:
        self.choices = [StepPages(policy, fused) for policy in policies]
        self.seed, self.steps, self.dense_share, self.degrees, self.anneal = seed, steps, dense_share, temperature, anneal
        self.soft = policies[0].mask == "soft"

    def pages(self, step: int) -> StepPages | None:
        """The StepPages of a step, with its temperature; None for a dense one."""
        rng = np.random.default_rng([self.seed, 99, step])
        if rng.random() < self.dense_share:
            return None
        pages = self.choices[rng.integers(len(self.choices))]
        if self.soft:
            pages.set_temperature(self.temperature(step))
        return pages

    def temperature(self, step: int) -> float | None:
        """None if the mask has none."""
        return annealed(step, self.steps, *self.degrees, self.anneal) if self.soft else None
