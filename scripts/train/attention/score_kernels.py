"""Triton kernels of the page scores of one chunk of queries, the exact cut of every query, and the gates.

C queries of a chunk that begins at token `first`, P pages that end before the chunk does; scratch is [B * Hk, C, P] in f32.
"""

import triton
import triton.language as tl

HARD_LOG_GATE = tl.constexpr(-1e30)
LEAST_SQUARE = tl.constexpr(1e-12)
LEAST_NEAR = tl.constexpr(1e-20)


@triton.jit
def log_gate_of(score, cut, inverse_temperature, HARD: tl.constexpr):
    """Log of the gate; the soft one is log(sigmoid(x)), written so that neither end overflows."""
    if HARD:
        return tl.where(score >= cut, 0.0, HARD_LOG_GATE)
    x = (score - cut) * inverse_temperature
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def score_kernel(
    queries,
    mean,
    spread,
    theta,
    out,
    top_head,
    inverse_width,
    first,
    chunk,
    tokens,
    pages,
    stored_pages,
    scale,
    lam,
    inverse_temperature,
    G: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BP: tl.constexpr,
    PAGE: tl.constexpr,
    SINK: tl.constexpr,
    RECENT: tl.constexpr,
    BUDGET: tl.constexpr,
    GATE: tl.constexpr,
    HARD: tl.constexpr,
    DIAG: tl.constexpr,
):
    """queries [B*Hk*G, n, D], mean [B*Hk, stored, D] -> out [B*Hk, C, P]. `spread` is std [B*Hk, stored], or var as `mean` in DIAG.

    GATE false: scores, -inf where a page does not compete. GATE true (backward, theta [B*Hk, n] known): log gates, 0 where it does
    not, and top_head [B*Hk, C, P], the head of the group with the largest score. In DIAG, inverse_width [B*Hk, C, P] gets
    1 / sqrt(sum q^2 var) of that head.
    """
    kv = tl.program_id(2).to(tl.int64)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    page = tl.program_id(1) * BP + tl.arange(0, BP)
    token = first + row
    inside = (row < chunk) & (token < tokens)
    dims = tl.arange(0, D)
    known = page < stored_pages
    centre = tl.load(mean + (kv * stored_pages + page[:, None]) * D + dims[None, :], mask=known[:, None], other=0.0)
    if DIAG:
        var = tl.load(spread + (kv * stored_pages + page[:, None]) * D + dims[None, :], mask=known[:, None], other=0.0)
    else:
        std = tl.load(spread + kv * stored_pages + page, mask=known, other=0.0)
    best = tl.full((BM, BP), float("-inf"), tl.float32)
    head = tl.zeros((BM, BP), tl.int32)
    inverse = tl.zeros((BM, BP), tl.float32)
    for g in tl.static_range(G):
        base = ((kv * G + g) * tokens).to(tl.int64)
        q = tl.load(queries + (base + token[:, None]) * D + dims[None, :], mask=inside[:, None], other=0.0)
        wide = q.to(tl.float32)
        if DIAG:
            square = tl.dot((wide * wide).to(q.dtype), tl.trans(var), input_precision="ieee")
            width = tl.sqrt(tl.maximum(square, LEAST_SQUARE))
        else:
            width = tl.sqrt(tl.sum(wide * wide, 1))[:, None] * std[None, :]
        score = (tl.dot(q, tl.trans(centre), input_precision="ieee") + lam * width) * scale
        if DIAG and GATE:  # a width at its least has no gradient
            inverse = tl.where(score > best, tl.where(square > LEAST_SQUARE, 1.0 / width, 0.0), inverse)
        head = tl.where(score > best, g, head)
        best = tl.maximum(score, best)
    own = token // PAGE
    competes = (page[None, :] >= SINK) & (page[None, :] <= own[:, None] - RECENT) & (own[:, None] + 1 > BUDGET)
    place = (kv * chunk + row[:, None]) * pages + page[None, :]
    stored = inside[:, None] & (page[None, :] < pages)
    if GATE:
        cut = tl.load(theta + kv * tokens + token, mask=inside, other=0.0)
        gate = log_gate_of(best, cut[:, None], inverse_temperature, HARD)
        tl.store(out + place, tl.where(competes, gate, 0.0), mask=stored)
        if not HARD:
            tl.store(top_head + place, head.to(tl.int8), mask=stored)
            if DIAG:
                tl.store(inverse_width + place, inverse, mask=stored)
    else:
        tl.store(out + place, tl.where(competes, best, float("-inf")), mask=stored)


@triton.jit
def score_grad_kernel(
    gates,
    gate_grad,
    top_head,
    inverse_width,
    out,
    width_out,
    chunk,
    pages,
    factor,
    G: tl.constexpr,
    COLUMNS: tl.constexpr,
    DIAG: tl.constexpr,
):
    """gates, top_head [B*Hk, C, P], gate_grad [B*Hk*G, C, P] -> out as gate_grad: the gradient of a page's unscaled score, with the head
    that gave the score; 0 with the others. In DIAG, width_out gets the same gradients times inverse_width. One query per program.

    The gate serves all heads of its group, so their gradients add up; d log(g) / d score = (1 - g) * factor. If the gate is open or
    the page does not compete (log 0), the gradient is 0 whatever gate_grad contains: no tile of queries wrote the pages after it.
    The cut follows the pages near it (see reference.moving_cut), so the gradients of a query's scores add up to 0.
    """
    row = tl.program_id(0)
    kv = tl.program_id(1).to(tl.int64)
    page = tl.arange(0, COLUMNS)
    known = page < pages
    place = (kv * chunk + row) * pages + page
    gate = tl.load(gates + place, mask=known, other=0.0)
    head = tl.load(top_head + place, mask=known, other=0)
    total = tl.zeros((COLUMNS,), tl.float32)
    for g in tl.static_range(G):
        total += tl.load(gate_grad + ((kv * G + g) * chunk + row) * pages + page, mask=known, other=0.0)
    closed = 1.0 - tl.exp(gate)
    grad = tl.where(gate < 0.0, total * closed * factor, 0.0)
    near = tl.where(gate < 0.0, (1.0 - closed) * closed, 0.0)
    grad -= near * (tl.sum(grad, 0) / tl.maximum(tl.sum(near, 0), LEAST_NEAR))
    if DIAG:
        by_width = grad * tl.load(inverse_width + place, mask=known, other=0.0)
    for g in tl.static_range(G):
        of_head = ((kv * G + g) * chunk + row) * pages + page
        tl.store(out + of_head, tl.where(head == g, grad, 0.0).to(out.dtype.element_ty), mask=known)
        if DIAG:
            tl.store(width_out + of_head, tl.where(head == g, by_width, 0.0).to(width_out.dtype.element_ty), mask=known)


@triton.jit
def ordered(score):
    """f32 as int32 with the same order."""
    bits = score.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def unordered(key):
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)


@triton.jit
def cut_kernel(
    scores,
    theta,
    first,
    chunk,
    tokens,
    pages,
    inverse_temperature,
    RANKED: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAGE: tl.constexpr,
    SINK: tl.constexpr,
    RECENT: tl.constexpr,
    BUDGET: tl.constexpr,
    HARD: tl.constexpr,
):
    """One query per program: its row of `scores` is in registers, and the RANKED-th largest is found exactly, bit by bit.

    Writes theta [B*Hk, n] and turns scores into log gates in place.
    """
    row = tl.program_id(0)
    kv = tl.program_id(1).to(tl.int64)
    token = first + row
    page = tl.arange(0, COLUMNS)
    place = scores + (kv * chunk + row) * pages + page
    score = tl.load(place, mask=page < pages, other=float("-inf"))
    own = token // PAGE
    cut = float("-inf")
    if own + 1 > BUDGET:
        key = ordered(score)
        taken = tl.where(tl.sum((key >= 0).to(tl.int32), 0) >= RANKED, 0, -2147483648)
        for step in range(31):
            trial = taken | (1 << (30 - step))
            taken = tl.where(tl.sum((key >= trial).to(tl.int32), 0) >= RANKED, trial, taken)
        below = tl.max(tl.where(key < taken, key, -2147483648), 0)
        left = tl.where(tl.sum((key >= taken).to(tl.int32), 0) > RANKED, taken, below)
        cut = (unordered(taken) + unordered(left)) * 0.5
    competes = (page >= SINK) & (page <= own - RECENT) & (own + 1 > BUDGET)
    gate = log_gate_of(score, cut, inverse_temperature, HARD)
    tl.store(place, tl.where(competes, gate, 0.0), mask=page < pages)
    tl.store(theta + kv * tokens + token, cut)
