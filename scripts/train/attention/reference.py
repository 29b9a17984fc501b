"""Soft-mask attention in plain PyTorch: the reference for the kernels, and the implementation on the CPU.

Follows tests/fixtures/unique_reference.py (statistics, scores, pages that are always read) for every query of a causal pass at once.
B sequences, Hq query heads in Hk groups of G, n tokens, S tokens per page, P complete pages, d head size.

Scores are multiplied by the attention's own scale, so the temperature is in units of a logit: 1 means that a page one logit below
the cut keeps exp(-1.3) of its weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from .policy import PagePolicy


HARD_LOG_GATE = -1e30  # finite, so that a block of closed pages gives no NaN


# Squares of spreads are at least this, because the square root has no slope at 0.
LEAST_SQUARE = 1e-12
# The sum of the slopes of a query's gates is at least this.
LEAST_NEAR = 1e-20


def page_statistics(keys: torch.Tensor, page_size: int, scorer: str = "unique") -> tuple[torch.Tensor, torch.Tensor]:
    """keys [B, Hk, n, d] -> mean [B, Hk, P, d] and spread of the complete pages, in at least f32.

    The spread is the std [B, Hk, P] for the scorer `unique` and the variances [B, Hk, P, d] for `diag`.
    """
    batch, heads, tokens, dim = keys.shape
    pages = tokens // page_size
    wide = keys.float() if keys.dtype in (torch.float16, torch.bfloat16) else keys
    wide = wide[:, :, : pages * page_size].reshape(batch, heads, pages, page_size, dim)
    mean = wide.mean(3)
    var = (wide - mean[:, :, :, None]).square().mean(3)
    return mean, var if scorer == "diag" else var.sum(-1).clamp_min(LEAST_SQUARE).sqrt()


def page_scores(queries: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor, lam: float) -> torch.Tensor:
    """queries [B, Hq, n, d] -> [B, Hk, n, P]: the maximum score over the heads of a group, unscaled. `spread`: see page_statistics."""
    batch, kv_heads, _, dim = mean.shape
    grouped = queries.reshape(batch, kv_heads, -1, queries.shape[2], dim).to(mean.dtype)
    if spread.dim() == mean.dim():
        widths = torch.einsum("bhgnd,bhpd->bhgnp", grouped.square(), spread).clamp_min(LEAST_SQUARE).sqrt()
    else:
        widths = grouped.norm(dim=-1)[..., None] * spread[:, :, None, None, :]
    return (torch.einsum("bhgnd,bhpd->bhgnp", grouped, mean) + lam * widths).amax(2)


def candidate_pages(tokens: int, pages: int, policy: PagePolicy, device: torch.device) -> torch.Tensor:
    """[n, P]: whether a page competes for a place in the selection of a query. False if P <= k, and for pages that are always read."""
    own = torch.arange(tokens, device=device)[:, None] // policy.page_size
    page = torch.arange(pages, device=device)[None]
    competes = (page >= policy.sink_pages) & (page <= own - policy.recent_pages)
    return competes & (own + 1 > policy.budget_pages)


def cut_of(scores: torch.Tensor, candidates: torch.Tensor, ranked_pages: int) -> torch.Tensor:
    """scores [B, Hk, n, P] -> theta [B, Hk, n], midway between the last selected score and the first one left out, or -inf."""
    masked = scores.detach().masked_fill(~candidates, float("-inf"))
    top = masked.topk(min(ranked_pages + 1, scores.shape[-1]), -1).values
    gated = candidates.any(-1)
    if top.shape[-1] <= ranked_pages:
        return torch.full(scores.shape[:-1], float("-inf"), dtype=scores.dtype, device=scores.device)
    theta = (top[..., ranked_pages - 1] + top[..., ranked_pages]) / 2
    return torch.where(gated, theta, float("-inf"))


def moving_cut(scores: torch.Tensor, theta: torch.Tensor, candidates: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """theta with the gradient of a cut that lets k pages through: d theta / d score = g (1 - g) of the page over their sum.

    With a fixed cut, every page gains by a higher score; all scores rise together, which opens no page, and training diverges.
    """
    gate = torch.sigmoid((scores - theta[..., None].clamp_min(-1e30)) / temperature).detach()
    near = torch.where(candidates, gate * (1 - gate), 0.0)
    share = near / near.sum(-1, keepdim=True).clamp_min(LEAST_NEAR)
    return theta + (share * (scores - scores.detach())).sum(-1)


def log_gate(
    scores: torch.Tensor, theta: torch.Tensor, candidates: torch.Tensor, mask: str, temperature: float | torch.Tensor
) -> torch.Tensor:
    """[B, Hk, n, P]: added to the logits of a page's tokens; 0 for pages that do not compete."""
    if mask == "hard":
        gate = torch.where(scores.detach() >= theta[..., None], 0.0, HARD_LOG_GATE).to(scores.dtype)
    else:
        gate = F.logsigmoid((scores - theta[..., None].clamp_min(-1e30)) / temperature)
    return torch.where(candidates, gate, torch.zeros_like(gate))


def soft_mask_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    policy: PagePolicy,
    temperature: float | torch.Tensor,
    scale: float | None = None,
    theta: torch.Tensor | None = None,
    mean_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """queries [B, Hq, n, d], keys and values [B, Hk, n, d] -> [B, Hq, n, d].

    For tests: `theta` [B, Hk, n] fixes the cut and its gradient to 0, `mean_dtype` rounds means and variances as kernels of that dtype do.
    """
    batch, heads, tokens, dim = queries.shape
    kv_heads, scale = keys.shape[1], dim**-0.5 if scale is None else scale
    grouped = queries.reshape(batch, kv_heads, heads // kv_heads, tokens, dim)
    logits = torch.einsum("bhgnd,bhmd->bhgnm", grouped, keys) * scale
    if policy.mask != "none" and tokens // policy.page_size > 0:
        mean, spread = page_statistics(keys, policy.page_size, policy.scorer)
        if mean_dtype is not None:
            mean = mean.to(mean_dtype).to(mean.dtype)
            spread = spread.to(mean_dtype).to(mean.dtype) if policy.scorer == "diag" else spread
        scores = page_scores(queries, mean, spread, policy.lam) * scale
        candidates = candidate_pages(tokens, scores.shape[-1], policy, queries.device)
        if theta is None:
            theta = cut_of(scores, candidates, policy.ranked_pages)
            theta = moving_cut(scores, theta, candidates, temperature) if policy.mask == "soft" else theta
        gate = log_gate(scores, theta, candidates, policy.mask, temperature).repeat_interleave(policy.page_size, -1)
        logits = logits + F.pad(gate, (0, tokens - gate.shape[-1]))[:, :, None]
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=queries.device).triu(1)
    weights = torch.softmax(logits.masked_fill(future, float("-inf")), -1).to(values.dtype)
    return torch.einsum("bhgnm,bhmd->bhgnd", weights, values).reshape(batch, heads, tokens, dim)
