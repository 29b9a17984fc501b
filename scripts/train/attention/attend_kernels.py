"""Triton kernels of causal attention with a bias per page, for one chunk of queries: forward, and both halves of the backward pass.

C queries of a chunk that begins at token `first`; gates [B*Hk, C, P] in f32 contain the logarithm of a page's gate. Exponentials use
base 2. Blocks of BN keys contain whole pages. Nothing is accumulated with atomics, so a step gives the same bits every time.

Loops are split in two: tiles entirely below the diagonal and inside the arrays need no masks (EDGE false); the others use them.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
CLOSED = tl.constexpr(-1e30)


@triton.jit
def load_rows(source, at, known, EDGE: tl.constexpr):
    """[rows, D]; `known` [rows] marks the rows that exist, if not all do."""
    return tl.load(source + at, mask=known[:, None], other=0.0) if EDGE else tl.load(source + at)


@triton.jit
def over_tokens(tile, BM: tl.constexpr, BN: tl.constexpr, PAGE: tl.constexpr):
    """[BM, BN / PAGE] -> [BM, BN]: every token of a page gets the page's number."""
    return tl.reshape(tl.broadcast_to(tile[:, :, None], (BM, BN // PAGE, PAGE)), (BM, BN))


@triton.jit
def query_logits(
    q,
    k,
    gates,
    gate_row,
    start,
    token,
    pages,
    scale,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PAGE: tl.constexpr,
    GATED: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Logits [BM, BN] to base 2 of a block of keys that begins at `start`; gate_row [BM] is the start of a query's gates."""
    logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2E)
    if GATED:
        page = start // PAGE + tl.arange(0, BN // PAGE)
        place = gates + gate_row[:, None] + page[None, :]
        tile = tl.load(place, mask=page[None, :] < pages, other=0.0) if EDGE else tl.load(place)
        logits += over_tokens(tile * LOG2E, BM, BN, PAGE)
    if EDGE:
        logits = tl.where(start + tl.arange(0, BN)[None, :] <= token[:, None], logits, CLOSED)
    return logits


@triton.jit
def forward_block(
    start,
    q,
    acc,
    total,
    peak,
    keys,
    values,
    gates,
    kv,
    gate_row,
    token,
    tokens,
    pages,
    scale,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PAGE: tl.constexpr,
    GATED: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Running sum [BM, D], total and peak [BM] after one more block of keys."""
    key = start + tl.arange(0, BN)
    at = (kv * tokens + key[:, None]) * D + tl.arange(0, D)[None, :]
    k = load_rows(keys, at, key < tokens, EDGE)
    logits = query_logits(q, k, gates, gate_row, start, token, pages, scale, BM, BN, PAGE, GATED, EDGE)
    new_peak = tl.maximum(peak, tl.max(logits, 1))
    weight = tl.exp2(logits - new_peak[:, None])
    shrink = tl.exp2(peak - new_peak)
    v = load_rows(values, at, key < tokens, EDGE)
    acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, total * shrink + tl.sum(weight, 1), new_peak


@triton.jit
def forward_kernel(
    queries,
    keys,
    values,
    gates,
    out,
    log_sum,
    first,
    chunk,
    tokens,
    pages,
    scale,
    G: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PAGE: tl.constexpr,
    GATED: tl.constexpr,
):
    """queries and out [B*Hq, n, D], keys and values [B*Hk, n, D], log_sum [B*Hq, n] (base 2). A program handles BM queries of a head."""
    head = tl.program_id(1).to(tl.int64)
    kv = head // G
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    token = first + row
    inside = (row < chunk) & (token < tokens)
    at = (head * tokens + token[:, None]) * D + tl.arange(0, D)[None, :]
    q = tl.load(queries + at, mask=inside[:, None], other=0.0)
    gate_row = (kv * chunk + tl.minimum(row, chunk - 1)) * pages
    peak = tl.full((BM,), CLOSED, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    begin = first + tl.program_id(0) * BM
    below = begin // BN * BN
    for start in range(0, below, BN):
        acc, total, peak = forward_block(
            start, q, acc, total, peak, keys, values, gates, kv, gate_row, token, tokens, pages, scale, D, BM, BN, PAGE, GATED, False
        )
    for start in range(below, tl.minimum(begin + BM, tokens), BN):
        acc, total, peak = forward_block(
            start, q, acc, total, peak, keys, values, gates, kv, gate_row, token, tokens, pages, scale, D, BM, BN, PAGE, GATED, True
        )
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
    tl.store(log_sum + head * tokens + token, peak + tl.log2(total), mask=inside)


@triton.jit
def query_grad_block(
    start,
    q,
    do,
    top,
    mean_grad,
    acc,
    keys,
    values,
    gates,
    gate_grad,
    kv,
    gate_row,
    grad_row,
    token,
    inside,
    tokens,
    pages,
    scale,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PAGE: tl.constexpr,
    GATED: tl.constexpr,
    SOFT: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Running gradient [BM, D] after one more block of keys, whose pages' gate gradients are stored."""
    key = start + tl.arange(0, BN)
    at = (kv * tokens + key[:, None]) * D + tl.arange(0, D)[None, :]
    k = load_rows(keys, at, key < tokens, EDGE)
    v = load_rows(values, at, key < tokens, EDGE)
    logits = query_logits(q, k, gates, gate_row, start, token, pages, scale, BM, BN, PAGE, GATED, EDGE)
    grad = tl.exp2(logits - top[:, None]) * (tl.dot(do, tl.trans(v), input_precision="ieee") - mean_grad[:, None])
    if SOFT:
        page = start // PAGE + tl.arange(0, BN // PAGE)
        sums = tl.sum(tl.reshape(grad, (BM, BN // PAGE, PAGE)), 2)
        tl.store(gate_grad + grad_row[:, None] + page[None, :], sums, mask=inside[:, None] & (page[None, :] < pages))
    return tl.dot(grad.to(k.dtype), k, acc, input_precision="ieee")


@triton.jit
def query_grad_kernel(
    queries,
    keys,
    values,
    gates,
    out_grad,
    log_sum,
    delta,
    query_grad,
    gate_grad,
    first,
    chunk,
    tokens,
    pages,
    scale,
    G: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PAGE: tl.constexpr,
    GATED: tl.constexpr,
    SOFT: tl.constexpr,
):
    """query_grad [B*Hq, n, D] in f32, and in SOFT gate_grad [B*Hq, C, P]: the sum of the logits' gradients over the tokens of each page."""
    head = tl.program_id(1).to(tl.int64)
    kv = head // G
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    token = first + row
    inside = (row < chunk) & (token < tokens)
    at = (head * tokens + token[:, None]) * D + tl.arange(0, D)[None, :]
    q = tl.load(queries + at, mask=inside[:, None], other=0.0)
    do = tl.load(out_grad + at, mask=inside[:, None], other=0.0)
    top = tl.load(log_sum + head * tokens + token, mask=inside, other=0.0)
    mean_grad = tl.load(delta + head * tokens + token, mask=inside, other=0.0)
    gate_row = (kv * chunk + tl.minimum(row, chunk - 1)) * pages
    grad_row = (head * chunk + row) * pages
    acc = tl.zeros((BM, D), tl.float32)
    begin = first + tl.program_id(0) * BM
    below = begin // BN * BN
    for start in range(0, below, BN):
        acc = query_grad_block(
            start,
            q,
            do,
            top,
            mean_grad,
            acc,
            keys,
            values,
            gates,
            gate_grad,
            kv,
            gate_row,
            grad_row,
            token,
            inside,
            tokens,
            pages,
            scale,
            D,
            BM,
            BN,
            PAGE,
            GATED,
            SOFT,
            False,
        )
    for start in range(below, tl.minimum(begin + BM, tokens), BN):
        acc = query_grad_block(
            start,
            q,
            do,
            top,
            mean_grad,
            acc,
            keys,
            values,
            gates,
            gate_grad,
            kv,
            gate_row,
            grad_row,
            token,
            inside,
            tokens,
            pages,
            scale,
            D,
            BM,
            BN,
            PAGE,
            GATED,
            SOFT,
            True,
        )
    tl.store(query_grad + at, acc * scale, mask=inside[:, None])


@triton.jit
def key_grad_block(
    head,
    tile,
    k,
    v,
    dk,
    dv,
    key,
    page,
    queries,
    out_grad,
    log_sum,
    delta,
    gates,
    kv,
    first,
    chunk,
    tokens,
    pages,
    scale,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PAGE: tl.constexpr,
    GATED: tl.constexpr,
    EDGE: tl.constexpr,
):
    """Running gradients [BN, D] of keys and values after one more tile of queries, which begins at row `tile` of the chunk."""
    row = tile + tl.arange(0, BM)
    token = first + row
    inside = (row < chunk) & (token < tokens)
    at = (head * tokens + token[:, None]) * D + tl.arange(0, D)[None, :]
    q = load_rows(queries, at, inside, EDGE)
    do = load_rows(out_grad, at, inside, EDGE)
    numbers = head * tokens + token
    top = tl.load(log_sum + numbers, mask=inside, other=0.0) if EDGE else tl.load(log_sum + numbers)
    mean_grad = tl.load(delta + numbers, mask=inside, other=0.0) if EDGE else tl.load(delta + numbers)
    logits = tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * LOG2E)
    if GATED:
        place = gates + (kv * chunk + row[None, :]) * pages + page[:, None]
        gate = tl.load(place, mask=inside[None, :] & (page[:, None] < pages), other=0.0) if EDGE else tl.load(place)
        logits += tl.reshape(tl.broadcast_to((gate * LOG2E)[:, None, :], (BN // PAGE, PAGE, BM)), (BN, BM))
    weight = tl.exp2(logits - top[None, :])
    if EDGE:
        weight = tl.where((key[:, None] <= token[None, :]) & inside[None, :], weight, 0.0)
    dv = tl.dot(weight.to(do.dtype), do, dv, input_precision="ieee")
    grad = weight * (tl.dot(v, tl.trans(do), input_precision="ieee") - mean_grad[None, :])
    dk += tl.dot((grad * scale).to(q.dtype), q, input_precision="ieee")
    return dk, dv


@triton.jit
def key_grad_kernel(
    queries,
    keys,
    values,
    gates,
    out_grad,
    log_sum,
    delta,
    key_grad,
    value_grad,
    first,
    chunk,
    tokens,
    pages,
    scale,
    G: tl.constexpr,
    D: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    PAGE: tl.constexpr,
    GATED: tl.constexpr,
):
    """Adds this chunk's part to key_grad and value_grad [B*Hk, n, D] in f32. A program owns BN keys, so programs do not conflict."""
    kv = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) * BN
    key = start + tl.arange(0, BN)
    known = (key < tokens)[:, None]
    at = (kv * tokens + key[:, None]) * D + tl.arange(0, D)[None, :]
    k = tl.load(keys + at, mask=known, other=0.0)
    v = tl.load(values + at, mask=known, other=0.0)
    dk = tl.load(key_grad + at, mask=known, other=0.0)
    dv = tl.load(value_grad + at, mask=known, other=0.0)
    page = start // PAGE + tl.arange(0, BN // PAGE)
    # Tiles of queries: some that do not see these keys, `edges` on the diagonal, whole ones, and possibly a partial one at the end.
    skipped = tl.maximum(start - first, 0) // BM
    whole = tl.minimum(tl.maximum((tl.maximum(start + BN - 1 - first, 0) + BM - 1) // BM, skipped), tl.maximum(chunk // BM, skipped))
    tiles = (chunk + BM - 1) // BM
    cut = tl.where(tiles > tl.maximum(chunk // BM, whole), 1, 0)
    edges = whole - skipped + cut
    for step in range(0, G * edges):
        place = step % tl.maximum(edges, 1)
        tile = tl.where(place < whole - skipped, skipped + place, tiles - 1) * BM
        dk, dv = key_grad_block(
            kv * G + step // tl.maximum(edges, 1),
            tile,
            k,
            v,
            dk,
            dv,
            key,
            page,
            queries,
            out_grad,
            log_sum,
            delta,
            gates,
            kv,
            first,
            chunk,
            tokens,
            pages,
            scale,
            D,
            BM,
            BN,
            PAGE,
            GATED,
            True,
        )
    within = tl.maximum(chunk // BM - whole, 0)
    for step in range(0, G * within):
        tile = (whole + step % tl.maximum(within, 1)) * BM
        dk, dv = key_grad_block(
            kv * G + step // tl.maximum(within, 1),
            tile,
            k,
            v,
            dk,
            dv,
            key,
            page,
            queries,
            out_grad,
            log_sum,
            delta,
            gates,
            kv,
            first,
            chunk,
            tokens,
            pages,
            scale,
            D,
            BM,
            BN,
            PAGE,
            GATED,
            False,
        )
    tl.store(key_grad + at, dk, mask=known)
    tl.store(value_grad + at, dv, mask=known)
