"""What a query may read: the same numbers as in `pagesift generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ..errors import TrainError

PAGE_SIZES = (8, 16, 32, 64)
MASKS = ("soft", "hard", "none")
# The scores that training has gates for, and the lambda of each that `pagesift generate` takes by default.
LAMBDAS = {"unique": 0.5, "diag": 2.0}


@dataclass(frozen=True)
class PagePolicy:
    """Counts are pages unless their name says tokens."""

    mask: str = "soft"
    budget_tokens: int = 512
    page_size: int = 8
    lam: float = 0.5
    sink_pages: int = 1
    recent_pages: int = 2
    scorer: str = "unique"

    @property
    def budget_pages(self) -> int:
        return self.budget_tokens // self.page_size

    @property
    def ranked_pages(self) -> int:
        """Pages that scores compete for: the budget without the pages that are always read."""
        return self.budget_pages - self.sink_pages - self.recent_pages

    def check(self, budget: str = "Budget") -> Self:
        """Raises TrainError unless training and decoding make the same selection with these numbers. `budget`: its name in errors."""
        if self.mask not in MASKS:
            raise TrainError(f'Mask "{self.mask}" is unknown; expected {", ".join(MASKS)}')
        if self.scorer not in LAMBDAS:
            raise TrainError(f'Scorer "{self.scorer}" has no mask; expected {", ".join(LAMBDAS)}')
        if self.page_size not in PAGE_SIZES:
            raise TrainError(f"Page size is {self.page_size} tokens, expected one of {PAGE_SIZES}")
        if self.budget_tokens % self.page_size != 0 or self.budget_tokens < self.page_size:
            raise TrainError(f"{budget} is {self.budget_tokens} tokens, expected a multiple of the page size {self.page_size}")
        if self.recent_pages < 1 or self.sink_pages < 0:
            raise TrainError("The query's own page is always read: expected at least 1 recent page and at least 0 sink pages")
        if self.ranked_pages < 1:
            fewest = (self.sink_pages + self.recent_pages + 1) * self.page_size
            raise TrainError(f"{budget} is {self.budget_tokens} tokens, expected at least {fewest}: one page more than are always read")
        if not self.lam >= 0:
            raise TrainError(f"Lambda is {self.lam}, expected a number of at least 0")
        return self
