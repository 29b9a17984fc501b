"""Soft-mask attention with Triton kernels, one chunk of queries after another.

Memory at any time besides inputs and outputs: for C queries of a chunk and P pages the log gates [B, Hk, C, P], and in the backward
pass gradients [B, Hq, C, P] of gates and of scores; C is at most half of the queries, and the largest of these stays below
SCRATCH_BYTES. Nothing is n x n or n x P.

What the backward pass recomputes, and why. Saved are inputs, output, log-sum-exp and theta, all [B, H, n] or smaller. Weights are
recomputed from the log-sum-exp, as flash attention does. Scores are recomputed too (a page of 8 has one score for 8 logits, so they
cost an eighth of the product with the keys), but not the cut: theta is one number per query, and finding it is the longer half.
The gate's own slope needs no scores: with g = sigmoid(x), d log(g) / dx = 1 - g = -expm1(log g), which is 0 for ungated pages.
Statistics of pages are inputs here; autograd carries their gradients to the keys.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import triton

from . import attend_kernels, score_kernels
from .policy import PagePolicy
from .reference import page_statistics

# 1 GiB: at 32,768 tokens and 8 heads that is 8,192 queries, 512 programs of the kernels over queries; 256 MiB left a GPU half idle.
SCRATCH_BYTES = 1 << 30
FEWEST_CHUNK_TOKENS = 128
# Queries and keys of a tile, warps and pipeline stages, by head size; the fastest on an H100 for heads of 64 (tune.py).
TILES = {
    "forward": {64: (128, 64, 8, 3), 128: (128, 64, 8, 3)},
    "query_grad": {64: (64, 64, 4, 3), 128: (64, 64, 4, 2)},
    "key_grad": {64: (64, 64, 4, 3), 128: (64, 64, 8, 2)},
    "score": {64: (64, 64, 8, 2), 128: (64, 32, 8, 2)},
}


def tile_of(kernel: str, head_dim: int, page_size: int, dtype: torch.dtype = torch.bfloat16) -> tuple[int, int, dict[str, int]]:
    """(queries, keys or pages, launch options) of a kernel's tile; f32 and the small heads of tests use small tiles."""
    small = 32, 32 if kernel == "score" else max(32, page_size), 4, 1
    queries, keys, warps, stages = small if dtype == torch.float32 else TILES[kernel].get(head_dim, small)
    return queries, keys, dict(num_warps=warps, num_stages=stages)


def chunk_tokens(batch: int, heads: int, tokens: int, page_size: int, scratch_bytes: int = SCRATCH_BYTES) -> int:
    """Queries of a chunk: a multiple of FEWEST_CHUNK_TOKENS whose scratch fits, no more than half of the tokens."""
    row_bytes = batch * heads * (tokens // page_size + 1) * 4
    wanted = scratch_bytes // row_bytes // FEWEST_CHUNK_TOKENS * FEWEST_CHUNK_TOKENS
    return max(FEWEST_CHUNK_TOKENS, min(wanted, -(-tokens // 2 // FEWEST_CHUNK_TOKENS) * FEWEST_CHUNK_TOKENS))


class Chunk:
    """Queries first .. first + size of all heads, and the numbers that the kernels need."""

    def __init__(self, queries: torch.Tensor, keys: torch.Tensor, policy: PagePolicy, scale: float, first: int, size: int) -> None:
        batch, heads, self.tokens, self.dim = queries.shape
        self.kv_rows, self.rows = batch * keys.shape[1], batch * heads
        self.groups, self.policy, self.scale, self.dtype = heads // keys.shape[1], policy, scale, queries.dtype
        self.diag = policy.scorer == "diag"
        self.first, self.size = first, min(size, self.tokens - first)
        self.end = self.first + self.size
        self.pages = -(-self.end // policy.page_size)
        self.gated = policy.mask != "none" and self.pages > policy.budget_pages

    def selection(self) -> dict[str, Any]:
        policy = self.policy
        return dict(
            PAGE=policy.page_size,
            SINK=policy.sink_pages,
            RECENT=policy.recent_pages,
            BUDGET=policy.budget_pages,
            HARD=policy.mask == "hard",
        )

    def columns(self) -> tuple[int, int]:
        """Places for a query's row of pages in registers, and the warps of its program."""
        columns = max(16, triton.next_power_of_2(self.pages))
        return columns, min(8, max(1, columns // 512))

    def shape(self) -> tuple[int, int, int, int]:
        return self.first, self.size, self.tokens, self.pages

    def scratch(self, rows: int, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(rows, self.size, self.pages, device=device, dtype=dtype)

    def score(
        self, queries: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor, temperature: float, theta: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores [B*Hk, C, P], or, once theta is known, log gates, each page's best head, and with `diag` its inverse width."""
        queries_a_tile, pages_a_tile, launch = tile_of("score", self.dim, self.policy.page_size, self.dtype)
        out = self.scratch(self.kv_rows, queries.device)
        top_head = self.scratch(self.kv_rows, queries.device, torch.int8) if theta is not None else out
        inverse_width = self.scratch(self.kv_rows, queries.device) if theta is not None and self.diag else out
        grid = (triton.cdiv(self.size, queries_a_tile), triton.cdiv(self.pages, pages_a_tile), self.kv_rows)
        score_kernels.score_kernel[grid](
            queries,
            mean,
            spread,
            out if theta is None else theta,
            out,
            top_head,
            inverse_width,
            *self.shape(),
            mean.shape[2],
            self.scale,
            self.policy.lam,
            1 / temperature,
            G=self.groups,
            D=self.dim,
            BM=queries_a_tile,
            BP=pages_a_tile,
            GATE=theta is not None,
            DIAG=self.diag,
            **self.selection(),
            **launch,
        )
        return out, top_head, inverse_width

    def cut(self, scores: torch.Tensor, theta: torch.Tensor, temperature: float) -> None:
        """Fills theta for the chunk's queries and turns scores into log gates."""
        columns, warps = self.columns()
        score_kernels.cut_kernel[(self.size, self.kv_rows)](
            scores,
            theta,
            self.first,
            self.size,
            self.tokens,
            self.pages,
            1 / temperature,
            RANKED=self.policy.ranked_pages,
            COLUMNS=columns,
            num_warps=warps,
            **self.selection(),
        )

    def attend(
        self,
        kernel: Any,
        name: str,
        inputs: Sequence[torch.Tensor],
        outputs: Sequence[torch.Tensor],
        by_keys: bool = False,
        **constants: Any,
    ) -> None:
        """Launches one of the attention kernels over the chunk's queries, or over all keys that they see."""
        queries_a_tile, keys_a_tile, launch = tile_of(name, self.dim, self.policy.page_size, self.dtype)
        grid = (triton.cdiv(self.end, keys_a_tile), self.kv_rows) if by_keys else (triton.cdiv(self.size, queries_a_tile), self.rows)
        kernel[grid](
            *inputs,
            *outputs,
            *self.shape(),
            self.scale,
            G=self.groups,
            D=self.dim,
            BM=queries_a_tile,
            BN=keys_a_tile,
            PAGE=self.policy.page_size,
            GATED=self.gated,
            **constants,
            **launch,
        )


def chunks_of(queries: torch.Tensor, keys: torch.Tensor, policy: PagePolicy, scale: float, scratch_bytes: int) -> list["Chunk"]:
    batch, heads, tokens, _ = queries.shape
    size = chunk_tokens(batch, heads, tokens, policy.page_size, scratch_bytes)
    return [Chunk(queries, keys, policy, scale, first, size) for first in range(0, tokens, size)]


# Two PyTorch operations, so that torch.compile keeps a layer in one graph. The temperature is a CPU tensor of one number, because a
# Python number that changes from step to step would compile again; `choice` contains the numbers of a PagePolicy.
@torch.library.custom_op("pagesift::soft_mask_attention", mutates_args=())
def soft_mask_forward(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mean: torch.Tensor,
    spread: torch.Tensor,
    temperature: torch.Tensor,
    mask: str,
    scorer: str,
    choice: list[int],
    lam: float,
    scale: float,
    scratch_bytes: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """queries [B, Hq, n, d], keys, values [B, Hk, n, d], mean [B, Hk, P, d], spread as in page_statistics; all contiguous, std in f32.

    Returns out as queries, log_sum [B, Hq, n] to base 2, theta [B, Hk, n].
    """
    policy, degree = PagePolicy(mask, choice[0], choice[1], lam, choice[2], choice[3], scorer), temperature.item()
    queries, keys, values, mean, spread = (each.contiguous() for each in (queries, keys, values, mean, spread))
    out, log_sum, theta = empty_results(queries, keys)
    for chunk in chunks_of(queries, keys, policy, scale, scratch_bytes):
        gates = log_sum
        if chunk.gated:
            gates, *_ = chunk.score(queries, mean, spread, degree)
            chunk.cut(gates, theta, degree)
        chunk.attend(attend_kernels.forward_kernel, "forward", (queries, keys, values, gates), (out, log_sum))
    return out, log_sum, theta


def empty_results(queries: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, heads, tokens, _ = queries.shape
    numbers = dict(device=queries.device, dtype=torch.float32)
    return torch.empty_like(queries), torch.empty(batch, heads, tokens, **numbers), torch.empty(batch, keys.shape[1], tokens, **numbers)


@torch.library.custom_op("pagesift::soft_mask_attention_backward", mutates_args=())
def soft_mask_backward(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mean: torch.Tensor,
    spread: torch.Tensor,
    temperature: torch.Tensor,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    theta: torch.Tensor,
    out_grad: torch.Tensor,
    mask: str,
    scorer: str,
    choice: list[int],
    lam: float,
    scale: float,
    scratch_bytes: int,
) -> list[torch.Tensor]:
    """Gradients of queries, keys, values, mean and spread, each in the dtype of its tensor."""
    policy, degree = PagePolicy(mask, choice[0], choice[1], lam, choice[2], choice[3], scorer), temperature.item()
    queries, keys, values, mean, spread, out_grad = (each.contiguous() for each in (queries, keys, values, mean, spread, out_grad))
    delta = (out.float() * out_grad.float()).sum(-1)
    leaves = (queries, keys, values, mean, spread)
    grads = [torch.zeros(like.shape, device=like.device, dtype=torch.float32) for like in leaves]
    query_grad, key_grad, value_grad, mean_grad, spread_grad = grads
    for chunk in chunks_of(queries, keys, policy, scale, scratch_bytes):
        soft = chunk.gated and policy.mask == "soft"
        gates, *best = chunk.score(queries, mean, spread, degree, theta) if chunk.gated else (log_sum,)
        inputs = (queries, keys, values, gates, out_grad, log_sum, delta)
        gate_grad = chunk.scratch(chunk.rows, queries.device) if soft else log_sum
        chunk.attend(attend_kernels.query_grad_kernel, "query_grad", inputs, (query_grad, gate_grad), SOFT=soft)
        chunk.attend(attend_kernels.key_grad_kernel, "key_grad", inputs, (key_grad, value_grad), by_keys=True)
        if soft:
            add = add_diag_gradient if chunk.diag else add_unique_gradient
            passed = score_gradient(chunk, gates, gate_grad, *best, scale / degree)
            add(chunk, passed, queries, mean, spread, (query_grad, mean_grad, spread_grad))
    # A result may not be the tensor of another one or of an input, which .to() of the same dtype respects here.
    return [grad.to(like.dtype) for grad, like in zip(grads, leaves, strict=False)]


@soft_mask_forward.register_fake
def _(queries: torch.Tensor, keys: torch.Tensor, *_: Any) -> Any:
    return empty_results(queries, keys)


@soft_mask_backward.register_fake
def _(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor, *_: Any) -> Any:
    return [torch.empty_like(tensor) for tensor in (queries, keys, values, mean, spread)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:6], *output)
    ctx.settings = inputs[6:]


def _backward(ctx: Any, out_grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    grads = soft_mask_backward(*ctx.saved_tensors, out_grad.contiguous(), *ctx.settings)
    return *grads, *[None] * (1 + len(ctx.settings))


soft_mask_forward.register_autograd(_backward, setup_context=_keep)


def score_gradient(
    chunk: Chunk, gates: torch.Tensor, gate_grad: torch.Tensor, top_head: torch.Tensor, inverse_width: torch.Tensor, factor: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """[B*Hq, C, P] in the dtype of the queries: the gradients of the unscaled scores, 0 except for the head with the maximum score.

    With `diag`, the second tensor has them times the inverse width; otherwise it is the first.
    """
    out = chunk.scratch(chunk.rows, gates.device, chunk.dtype)
    by_width = torch.empty_like(out) if chunk.diag else out
    columns, warps = chunk.columns()
    score_kernels.score_grad_kernel[(chunk.size, chunk.kv_rows)](
        *(gates, gate_grad, top_head, inverse_width, out, by_width, chunk.size, chunk.pages, factor),
        G=chunk.groups,
        COLUMNS=columns,
        DIAG=chunk.diag,
        num_warps=warps,
    )
    return out, by_width


def beside(rows: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """rows [..., d] and numbers [...] -> [..., d + 8]: the numbers in column d, then zeros, because products prefer multiples of 8."""
    return torch.cat([rows, F.pad(numbers[..., None].to(rows.dtype), (0, 7))], -1)


def add_diag_gradient(
    chunk: Chunk,
    passed: tuple[torch.Tensor, torch.Tensor],
    queries: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    grads: tuple[torch.Tensor, ...],
) -> None:
    """Adds the gradients of the scores: to the query of the head with the maximum score, and to mean and variances of the page.

    score = q . mean + lam * w with w = sqrt(sum q^2 var), hence d/dq = mean + lam * q var / w, d/dmean = q, d/dvar = lam * q^2 / (2 w).
    """
    query_grad, mean_grad, var_grad = (grad.view(-1, *grad.shape[2:]) for grad in grads)
    complete, lam, dim = min(chunk.pages, mean.shape[2]), chunk.policy.lam, chunk.dim
    part, by_kv = slice(chunk.first, chunk.end), (chunk.kv_rows, chunk.groups * chunk.size)
    query = queries.view(chunk.rows, chunk.tokens, dim)[:, part]
    centres, vars_ = (each.flatten(0, 1)[:, :complete].repeat_interleave(chunk.groups, 0) for each in (mean, var))
    score_grad, by_width = (each[..., :complete] for each in passed)
    query_grad[:, part] += torch.bmm(score_grad, centres).float() + lam * query.float() * torch.bmm(by_width, vars_).float()
    by_page, width_by_page = (each.view(*by_kv, chunk.pages)[..., :complete].transpose(1, 2) for each in passed)
    mean_grad[:, :complete] += torch.bmm(by_page, query.reshape(*by_kv, dim)).float()
    var_grad[:, :complete] += lam / 2 * torch.bmm(width_by_page, query.square().reshape(*by_kv, dim)).float()


def add_unique_gradient(
    chunk: Chunk,
    passed: tuple[torch.Tensor, torch.Tensor],
    queries: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    grads: tuple[torch.Tensor, ...],
) -> None:
    """Adds the gradients of the scores: to the query of the head with the maximum score, and to mean and std of the page.

    score = q . mean + lam * |q| * std, hence d/dq = mean + lam * std * q / |q|, d/dmean = q, d/dstd = lam * |q|: one product with
    means and stds side by side, one with queries and their norms.
    """
    query_grad, mean_grad, std_grad = (grad.view(-1, *grad.shape[2:]) for grad in grads)
    score_grad, _ = passed
    complete, lam, dim = min(chunk.pages, mean.shape[2]), chunk.policy.lam, chunk.dim
    part, by_kv = slice(chunk.first, chunk.end), (chunk.kv_rows, chunk.groups * chunk.size)
    query = queries.view(chunk.rows, chunk.tokens, dim)[:, part]
    norm = query.float().norm(dim=-1).clamp_min(1e-20)
    pages = beside(mean.flatten(0, 1), std.flatten(0, 1))[:, :complete].repeat_interleave(chunk.groups, 0)
    passed = torch.bmm(score_grad[..., :complete], pages).float()
    query_grad[:, part] += passed[..., :dim] + lam * passed[..., dim : dim + 1] * query.float() / norm[..., None]
    by_page = score_grad.view(*by_kv, chunk.pages)[..., :complete].transpose(1, 2)
    passed = torch.bmm(by_page, beside(query, norm).reshape(*by_kv, -1)).float()
    mean_grad[:, :complete] += passed[..., :dim]
    std_grad[:, :complete] += lam * passed[..., dim]


def fused_soft_mask_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    policy: PagePolicy,
    temperature: torch.Tensor,
    scale: float | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
) -> torch.Tensor:
    """queries [B, Hq, n, d], keys and values [B, Hk, n, d] -> [B, Hq, n, d], as reference.soft_mask_attention.

    `temperature` is a number, or a CPU tensor of one number.
    """
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    mean, spread = page_statistics(keys, policy.page_size, policy.scorer)
    spread = spread.to(queries.dtype) if policy.scorer == "diag" else spread
    choice = [policy.budget_tokens, policy.page_size, policy.sink_pages, policy.recent_pages]
    warmth = temperature if isinstance(temperature, torch.Tensor) else torch.tensor(float(temperature))
    inputs = [tensor.contiguous() for tensor in (queries, keys, values, mean.to(queries.dtype), spread)]
    return soft_mask_forward(*inputs, warmth, policy.mask, policy.scorer, choice, policy.lam, scale, scratch_bytes)[0]
