"""Decode attention over selected pages in plain PyTorch, one token at a time: how a model is read in an evaluation.

The selection is that of tests/fixtures/unique_reference.py: forced pages, then the best by score, the same for every head of a group.
B sequences, Hq query heads in Hk groups of G, n tokens, S tokens a page, P pages of which C are complete, k pages of the budget.
"""
from dataclasses import dataclass

import torch

from .attention.transformers_attention import dense_attention

DEFAULT_LAMBDA = {"unique": 0.5, "diag": 4.0, "quest": 0.0, "mean": 0.0, "oracle": 0.0}


@dataclass(frozen=True)
class Reader:
    """A way of reading: `name` is dense, oracle (the exact softmax mass of a page), or a score."""
    name: str
    budget_tokens: int = 0
    lam: float = 0.0
    page_size: int = 8
    sink_pages: int = 1
    recent_pages: int = 2

    @property
    def label(self):
        return "dense" if self.name == "dense" else f"{self.name} {self.budget_tokens}"


def statistics_of(keys, page_size):
    """keys [B, Hk, C * S, d] -> mean, var, low, high, each [B, Hk, C, d] in f32."""
    batch, heads, tokens, dim = keys.shape
    pages = keys.float().reshape(batch, heads, tokens // page_size, page_size, dim)
    return dict(mean=pages.mean(3), var=pages.var(3, unbiased=False), low=pages.amin(3), high=pages.amax(3))


def scores_of(queries, stats, name, lam):
    """queries [B, Hk, G, d] in f32 -> [B, Hk, C], the largest over the group."""
    def product(numbers, with_queries=queries):
        return torch.einsum("bhgd,bhpd->bhgp", with_queries, numbers)
    if name == "quest":
        return (product(stats["high"], queries.clamp_min(0)) + product(stats["low"], queries.clamp_max(0))).amax(2)
    scores = product(stats["mean"])
    if name == "unique":
        scores = scores + lam * queries.norm(dim=-1)[..., None] * stats["var"].sum(-1).sqrt()[:, :, None]
    elif name == "diag":
        scores = scores + lam * product(stats["var"], queries.square()).clamp_min(0).sqrt()
    return scores.amax(2)


def page_masses(queries, keys, scale, page_size):
    """[B, Hk, P]: the share of the dense softmax that a page has, the largest over the group."""
    tokens = keys.shape[2]
    weights = torch.softmax(torch.einsum("bhgd,bhnd->bhgn", queries, keys.float()) * scale, -1)
    weights = torch.nn.functional.pad(weights, (0, -tokens % page_size))
    return weights.unflatten(-1, (-1, page_size)).sum(-1).amax(2)


def select(scores, pages, budget_pages, sink_pages, recent_pages):
    """scores [B, Hk, P or fewer: the complete pages] -> [B, Hk, k] page numbers. Pages without a score must be forced."""
    full = scores.new_full((*scores.shape[:2], pages), float("-inf"))
    full[..., :scores.shape[-1]] = scores
    recent = min(recent_pages, budget_pages)
    full[..., pages - recent:] = float("inf")
    full[..., :min(sink_pages, budget_pages - recent)] = float("inf")
    return full.topk(budget_pages, -1).indices


def attend_pages(queries, keys, values, chosen, page_size, scale):
    """queries [B, Hk, G, d] in f32, chosen [B, Hk, k] -> [B, Hk, G, d] over the tokens of the chosen pages."""
    tokens, dim = keys.shape[2:]
    places = (chosen[..., None] * page_size + torch.arange(page_size, device=keys.device)).flatten(2)
    index = places.clamp_max(tokens - 1)[..., None].expand(-1, -1, -1, dim)
    logits = torch.einsum("bhgd,bhnd->bhgn", queries, keys.gather(2, index).float()) * scale
    logits = logits.masked_fill((places >= tokens)[:, :, None], float("-inf"))
    return torch.einsum("bhgn,bhnd->bhgd", torch.softmax(logits, -1), values.gather(2, index).float())


class PagedAttention:
    """What `pages=` brings to every layer of a pass: dense for a prompt, `reader` for a single token."""

    def __init__(self, reader):
        self.reader, self.kept = reader, {}

    def attend(self, layer, queries, keys, values, scale):
        pages = -(-keys.shape[2] // self.reader.page_size)
        budget = self.reader.budget_tokens // self.reader.page_size
        if queries.shape[2] > 1 or self.reader.name == "dense" or pages <= budget:
            return dense_attention(queries, keys, values, scale)
        batch, heads, _, dim = queries.shape
        grouped = queries.view(batch, keys.shape[1], -1, dim).float()
        chosen = select(self.scores(layer, grouped, keys, scale), pages, budget, self.reader.sink_pages, self.reader.recent_pages)
        return attend_pages(grouped, keys, values, chosen, self.reader.page_size, scale).to(values.dtype).view(batch, heads, 1, dim)

    def scores(self, layer, queries, keys, scale):
        """Statistics of pages that were complete at a layer's first step are kept; those of later ones are few, and made each time."""
        size = self.reader.page_size
        if self.reader.name == "oracle":
            return page_masses(queries, keys, scale, size)
        complete = keys.shape[2] // size
        if layer not in self.kept:
            self.kept[layer] = complete, statistics_of(keys[:, :, :complete * size], size)
        first, stats = self.kept[layer]
        parts = [scores_of(queries, stats, self.reader.name, self.reader.lam)]
        if complete > first:
            later = statistics_of(keys[:, :, first * size:complete * size], size)
            parts.append(scores_of(queries, later, self.reader.name, self.reader.lam))
        return torch.cat(parts, -1)


class Prefix:
    """A prompt read densely once, from which every reader decodes."""

    def __init__(self, model, ids):
        from transformers import DynamicCache
        self.model, self.tokens, self.cache = model, ids.shape[1], DynamicCache(config=model.config)
        self.kept = {}
        model.get_decoder()(input_ids=ids, past_key_values=self.cache, use_cache=True, pages=PagedAttention(Reader("dense")))

    def decode(self, ids, reader):
        """Feeds ids [B, m] one at a time -> logits [B, m, V] in f32; the cache is left as it was."""
        pages = PagedAttention(reader)
        pages.kept = self.kept.setdefault(reader.page_size, {})
        logits = []
        for token in ids.split(1, 1):
            hidden = self.model.get_decoder()(input_ids=token, past_key_values=self.cache, use_cache=True, pages=pages).last_hidden_state
            logits.append(self.model.get_output_embeddings()(hidden).float())
        self.cache.crop(self.tokens)
        return torch.cat(logits, 1)
