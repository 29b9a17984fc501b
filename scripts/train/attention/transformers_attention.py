"""Soft-mask attention as an attention implementation of the transformers library, without changes to model code.

The library passes keyword arguments of a model's call to the attention of every layer; `pages=` contains the policy of the step.
Layers with a sliding window attend to their window and never select, as in decoding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .policy import PagePolicy
from .reference import soft_mask_attention

NAME = "pagesift"


@dataclass
class StepPages:
    """The attention of one training step. The temperature is a CPU tensor that `set_temperature` fills."""

    policy: PagePolicy
    fused: bool
    temperature: torch.Tensor = field(default_factory=lambda: torch.tensor(1.0))

    def set_temperature(self, degree: float) -> None:
        self.temperature.fill_(degree)


def window_mask(queries: int, keys: int, window: int, device: torch.device) -> torch.Tensor:
    """[queries, keys]: whether a query sees a key in its window; the last query is at the last key."""
    at = torch.arange(keys - queries, keys, device=device)[:, None]
    key = torch.arange(keys, device=device)[None]
    return (key <= at) & (key > at - window)


def dense_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float | None, window: int | None = None
) -> torch.Tensor:
    """Causal; the queries are the last of the tokens. [B, Hq, m, d] over [B, Hk, n, d]."""
    shape = queries.shape[2], keys.shape[2]
    mask = None
    if window is not None and window < shape[1]:
        mask = window_mask(*shape, window, queries.device)
    elif 1 < shape[0] < shape[1]:
        mask = window_mask(*shape, shape[1], queries.device)
    causal = mask is None and shape[0] > 1
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=True)


def attend(
    module: torch.nn.Module,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    pages: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The library's interface: returns [B, n, Hq, d] and no weights. `pages` is a StepPages, or anything else with `attend`."""
    queries, keys = queries.to(values.dtype), keys.to(values.dtype)
    if pages is None and sliding_window is None and queries.shape[2] == keys.shape[2]:
        out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scaling, enable_gqa=True)
    elif pages is None or isinstance(pages, StepPages) and sliding_window is not None and sliding_window < keys.shape[2]:
        out = dense_attention(queries, keys, values, scaling, sliding_window)
    elif isinstance(pages, StepPages):
        out = attend_step(queries, keys, values, pages, scaling)
    else:
        out = pages.attend(module.layer_idx, queries, keys, values, scaling, sliding_window)
    return out.transpose(1, 2).contiguous(), None


def attend_step(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pages: StepPages, scale: float | None) -> torch.Tensor:
    if pages.policy.mask == "none":  # not through dense_attention: torch.compile needs a plain True
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scale, enable_gqa=True)
    if pages.fused:
        from .fused import fused_soft_mask_attention

        return fused_soft_mask_attention(queries, keys, values, pages.policy, pages.temperature, scale)
    return soft_mask_attention(queries, keys, values, pages.policy, pages.temperature, scale)


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
