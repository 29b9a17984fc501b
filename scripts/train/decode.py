"""Decode attention over selected pages in plain PyTorch, token by token, for evaluations.

The selection is that of tests/fixtures/unique_reference.py: pages that are always read, then the best by score, the same for every head
of a group. All readers are rows of one batch, because launches dominate the step of a small model. They share the prompt's keys and
values; each has its own decoded tokens.

R readers (N of one budget), B sequences, Hq query heads in Hk groups of G, S tokens per page, k pages of a budget. The prompt has n
tokens, whose C complete pages come first; the tail is what follows them: n - C * S tokens of the prompt, then the decoded ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .attention.transformers_attention import dense_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


DEFAULT_LAMBDA = {"unique": 0.5, "diag": 2.0, "quest": 0.0, "mean": 0.0, "oracle": 0.0}


@dataclass(frozen=True)
class Reader:
    """A reader: `name` is dense, oracle (the exact softmax mass of a page, averaged over the group), or a score."""

    name: str
    budget_tokens: int = 0
    lam: float = 0.0
    page_size: int = 8
    sink_pages: int = 1
    recent_pages: int = 2

    @property
    def label(self) -> str:
        return "dense" if self.name == "dense" else f"{self.name} {self.budget_tokens}"


def statistics_of(keys: torch.Tensor, page_size: int) -> dict[str, torch.Tensor]:
    """keys [..., P * S, d] -> mean, var, low, high, each [..., P, d] in f32."""
    pages = keys.float().unflatten(-2, (-1, page_size))
    mean = pages.mean(-2)
    var = (pages - mean[..., None, :]).square().mean(-2)
    return dict(mean=mean, var=var, low=pages.amin(-2), high=pages.amax(-2))


def scores_of(queries: torch.Tensor, stats: dict[str, torch.Tensor], name: str, lam: float) -> torch.Tensor:
    """queries [..., M, d] in f32, statistics [..., P, d] -> [..., M, P]."""

    def product(numbers: torch.Tensor, with_queries: torch.Tensor = queries) -> torch.Tensor:
        return with_queries @ numbers.transpose(-1, -2)

    if name == "quest":
        return product(stats["high"], queries.clamp_min(0)) + product(stats["low"], queries.clamp_max(0))
    scores = product(stats["mean"])
    if name == "unique":
        scores = scores + lam * queries.norm(dim=-1)[..., None] * stats["var"].sum(-1).sqrt()[..., None, :]
    elif name == "diag":
        scores = scores + lam * product(stats["var"], queries.square()).clamp_min(0).sqrt()
    return scores


def select(scores: torch.Tensor, pages: int, budget_pages: int, sink_pages: int, recent_pages: int) -> torch.Tensor:
    """scores [..., P or fewer: the complete pages] -> [..., k] page numbers. Pages without a score must be always read."""
    full = scores.new_full((*scores.shape[:-1], pages), float("-inf"))
    full[..., : scores.shape[-1]] = scores
    budget_pages = min(budget_pages, pages)
    recent = min(recent_pages, budget_pages)
    full[..., pages - recent :] = float("inf")
    full[..., : min(sink_pages, budget_pages - recent)] = float("inf")
    return full.topk(budget_pages, -1).indices


def for_shared(product: Callable[..., torch.Tensor], queries: torch.Tensor, shared: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor:
    """product([B, Hk, M, d], shared) -> [B, Hk, M, x] for queries [R, B, Hk, G, d]: shared [B, Hk, ...] is read once. [R, B, Hk, G, x]"""
    readers, _, _, heads, _ = queries.shape
    out = product(queries.permute(1, 2, 0, 3, 4).flatten(2, 3), shared)
    return out.unflatten(2, (readers, heads)).permute(2, 0, 1, 3, 4)


def product_with(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return queries @ keys.float().transpose(-1, -2)


class LayerStep:
    """One layer's attention of one step: queries [R, B, Hk, G, d] and tail keys and values [R, B, Hk, t, d] in f32, the prompt as it is."""

    def __init__(
        self,
        queries: torch.Tensor,
        prompt: tuple[torch.Tensor, torch.Tensor],
        tail: Sequence[torch.Tensor],
        complete: int,
        scale: float,
        page_size: int,
    ) -> None:
        self.queries, (self.keys, self.values), (self.tail_keys, self.tail_values) = queries, prompt, tail
        self.first, self.scale, self.size = complete * page_size, scale, page_size
        self.tokens = self.first + self.tail_keys.shape[3]
        self.pages = -(-self.tokens // page_size)

    def weights(self, rows: slice | list[int], window: int | None = None) -> torch.Tensor:
        """[R, B, Hk, G, tokens]: the dense softmax of some readers."""
        queries = self.queries[rows]
        shared = for_shared(product_with, queries, self.keys[:, :, : self.first])
        logits = torch.cat([shared, product_with(queries, self.tail_keys[rows])], -1) * self.scale
        if window is not None:
            logits[..., : max(0, self.tokens - window)] = float("-inf")
        return torch.softmax(logits, -1)

    def dense(self, weights: torch.Tensor, rows: slice | list[int]) -> torch.Tensor:
        """[R, B, Hk, G, d]"""
        shared = for_shared(lambda each, values: each @ values.float(), weights[..., : self.first], self.values[:, :, : self.first])
        return shared + weights[..., self.first :] @ self.tail_values[rows]

    def masses(self, weights: torch.Tensor) -> torch.Tensor:
        """[R, B, Hk, P]: each page's share of the dense softmax, averaged over the group, by which the oracle ranks."""
        return torch.nn.functional.pad(weights, (0, -self.tokens % self.size)).unflatten(-1, (-1, self.size)).sum(-1).mean(3)

    def scores(self, rows: slice | list[int], name: str, lam: float, stats: dict[str, torch.Tensor]) -> torch.Tensor:
        """[R, B, Hk, complete pages]; `stats` are those of the prompt's complete pages."""
        queries, complete = self.queries[rows], self.tail_keys.shape[3] // self.size
        shared = for_shared(lambda each, numbers: scores_of(each, numbers, name, lam), queries, stats).amax(3)
        later = statistics_of(self.tail_keys[rows][..., : complete * self.size, :], self.size)
        return torch.cat([shared, scores_of(queries, later, name, lam).amax(3)], -1)

    def attend(self, rows: slice | list[int], chosen: torch.Tensor) -> torch.Tensor:
        """chosen [N, B, Hk, k] -> [N, B, Hk, G, d] over the tokens of the selected pages."""
        places = (chosen[..., None] * self.size + torch.arange(self.size, device=chosen.device)).flatten(3)
        logits = self.queries[rows] @ self.gather(self.keys, self.tail_keys[rows], places).transpose(-1, -2) * self.scale
        logits = logits.masked_fill((places >= self.tokens)[..., None, :], float("-inf"))
        return torch.softmax(logits, -1) @ self.gather(self.values, self.tail_values[rows], places)

    def gather(self, prompt: torch.Tensor, tail: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """[N, B, Hk, m, d] in f32: tokens by position, from the prompt or a reader's tail."""

        def take(source: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            return source.gather(3, at[..., None].expand(*at.shape, source.shape[-1])).float()

        mine = take(tail, (places - self.first).clamp(0, tail.shape[3] - 1))
        if self.first == 0:
            return mine
        shared = take(prompt[None].expand(len(tail), *prompt.shape), places.clamp_max(self.first - 1))
        return torch.where((places < self.first)[..., None], shared, mine)


class Prompt:
    """Keys and values [B, Hk, n, d] of a prompt's layers, and the statistics of its pages, computed on demand."""

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.layers = layers
        self.computed: dict[tuple[int, int], dict[str, torch.Tensor]] = {}

    def statistics(self, layer: int, page_size: int) -> dict[str, torch.Tensor]:
        if (layer, page_size) not in self.computed:
            keys = self.layers[layer][0]
            self.computed[layer, page_size] = statistics_of(keys[:, :, : keys.shape[2] // page_size * page_size], page_size)
        return self.computed[layer, page_size]


class SparseReading:
    """The `pages=` argument for every layer of a step. Rows of the batch are reader by reader; all readers share one page size."""

    def __init__(self, prompt: Prompt, readers: list[Reader]) -> None:
        self.prompt, self.readers, self.size = prompt, readers, readers[0].page_size

    def attend(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, window: int | None = None
    ) -> torch.Tensor:
        """queries [R * B, Hq, 1, d], keys and values of the decoded tokens [R * B, Hk, m, d] -> [R * B, Hq, 1, d]"""
        count, own = len(self.readers), self.prompt.layers[layer]
        complete = own[0].shape[2] // self.size
        first = complete * self.size
        tail = [
            torch.cat([mine[None, :, :, first:].expand(count, -1, -1, -1, -1), decoded.unflatten(0, (count, -1))], 3).float()
            for mine, decoded in zip(own, (keys, values), strict=True)
        ]
        grouped = queries.unflatten(0, (count, -1)).unflatten(2, (keys.shape[1], -1)).squeeze(4).float()
        step = LayerStep(grouped, own, tail, complete, scale, self.size)
        if window is not None and window < step.tokens:
            out = step.dense(step.weights(slice(None), window), slice(None))
        else:
            out = self.read(step, layer)
        return out.to(values.dtype).reshape(queries.shape)

    def read(self, step: LayerStep, layer: int) -> torch.Tensor:
        """[R, B, Hk, G, d]"""
        out, scores = torch.empty_like(step.queries), {}
        exact = self.rows(lambda reader: reader.name in ("dense", "oracle"))
        if exact:
            weights = step.weights(exact)
            for place, row in enumerate(exact):
                if self.readers[row].name == "dense":
                    out[row] = step.dense(weights[place : place + 1], [row])[0]
                else:
                    scores[row] = step.masses(weights[place : place + 1])[0]
        for name, lam in dict.fromkeys((reader.name, reader.lam) for row, reader in enumerate(self.readers) if row not in exact):
            rows = self.rows(lambda reader, key=(name, lam): (reader.name, reader.lam) == key)
            scores.update(zip(rows, step.scores(rows, name, lam, self.prompt.statistics(layer, self.size)), strict=True))
        for choice in dict.fromkeys(self.choice(row) for row in scores):
            rows = [row for row in scores if self.choice(row) == choice]
            by_row = [torch.nn.functional.pad(scores[row], (0, step.pages - scores[row].shape[-1]), value=float("-inf")) for row in rows]
            out[rows] = step.attend(rows, select(torch.stack(by_row), step.pages, *choice))
        return out

    def rows(self, wanted: Callable[[Reader], bool]) -> list[int]:
        return [row for row, reader in enumerate(self.readers) if wanted(reader)]

    def choice(self, row: int) -> tuple[int, int, int]:
        reader = self.readers[row]
        return reader.budget_tokens // self.size, reader.sink_pages, reader.recent_pages


class DenseReading:
    """The `pages=` argument for the pass over a prompt."""

    def attend(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, window: int | None = None
    ) -> torch.Tensor:
        return dense_attention(queries, keys, values, scale, window)


class Prefix:
    """A prompt that is prefilled densely once and from which every reader decodes."""

    def __init__(self, model: PreTrainedModel, ids: torch.Tensor) -> None:
        from transformers import DynamicCache

        self.model, self.tokens, cache = model, ids.shape[1], DynamicCache()
        model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True, pages=DenseReading())
        self.prompt = Prompt([(layer.keys, layer.values) for layer in cache.layers])

    def decode(self, ids: torch.Tensor, readers: list[Reader]) -> torch.Tensor:
        """Feeds ids [B, m] one at a time -> logits [R, B, m, V] in f32."""
        from transformers import DynamicCache

        pages, decoded, logits = SparseReading(self.prompt, readers), DynamicCache(), []
        for at, token in enumerate(ids.split(1, 1)):
            place = torch.full((1, 1), self.tokens + at, device=ids.device)
            hidden = self.model.get_decoder()(
                input_ids=token.repeat(len(readers), 1), position_ids=place, past_key_values=decoded, use_cache=True, pages=pages
            ).last_hidden_state
            logits.append(self.model.get_output_embeddings()(hidden).float().unflatten(0, (len(readers), -1)))
        return torch.cat(logits, 2)
