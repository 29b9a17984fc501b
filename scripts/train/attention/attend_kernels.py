"""Triton kernels of causal attention with a bias a page, for one chunk of queries: forward, and both halves of the backward pass.

C queries of a chunk that begins at token `first`; gates [B*Hk, C, P] in f32 hold the logarithm of a page's gate. Exponentials are
taken to base 2. Blocks of BN keys hold whole pages. Nothing is accumulated by atomics, so a step gives the same bits every time.
"""
import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
CLOSED = tl.constexpr(-1e30)


@triton.jit
def gate_tile(gates, kv, row, page, chunk, pages, inside):
    """Log gates [BM, BN / PAGE] of rows of the chunk; 0 beyond the last page."""
    place = gates + (kv * chunk + row[:, None]) * pages + page[None, :]
    return tl.load(place, mask=inside[:, None] & (page[None, :] < pages), other=0.0)


@triton.jit
def over_tokens(tile, BM: tl.constexpr, BN: tl.constexpr, PAGE: tl.constexpr):
    """[BM, BN / PAGE] -> [BM, BN]: every token of a page has the page's number."""
    return tl.reshape(tl.broadcast_to(tile[:, :, None], (BM, BN // PAGE, PAGE)), (BM, BN))


@triton.jit
def forward_kernel(queries, keys, values, gates, out, log_sum, first, chunk, tokens, pages, scale, G: tl.constexpr, D: tl.constexpr,
                   BM: tl.constexpr, BN: tl.constexpr, PAGE: tl.constexpr, GATED: tl.constexpr):
    """queries and out [B*Hq, n, D], keys and values [B*Hk, n, D], log_sum [B*Hq, n] (base 2). A program takes BM queries of a head."""
    head = tl.program_id(1).to(tl.int64)
    kv = head // G
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    token = first + row
    inside = (row < chunk) & (token < tokens)
    dims = tl.arange(0, D)
    at = (head * tokens + token[:, None]) * D + dims[None, :]
    q = tl.load(queries + at, mask=inside[:, None], other=0.0)
    peak = tl.full((BM,), CLOSED, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    end = tl.minimum(first + tl.program_id(0) * BM + BM, tokens)
    for start in range(0, end, BN):
        key = start + tl.arange(0, BN)
        known = (key < tokens)[:, None]
        from_kv = (kv * tokens + key[:, None]) * D + dims[None, :]
        k = tl.load(keys + from_kv, mask=known, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2E)
        if GATED:
            tile = gate_tile(gates, kv, row, start // PAGE + tl.arange(0, BN // PAGE), chunk, pages, inside)
            logits += over_tokens(tile * LOG2E, BM, BN, PAGE)
        logits = tl.where(key[None, :] <= token[:, None], logits, CLOSED)
        new_peak = tl.maximum(peak, tl.max(logits, 1))
        weight = tl.exp2(logits - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(weight, 1)
        v = tl.load(values + from_kv, mask=known, other=0.0)
        acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        peak = new_peak
    tl.store(out + at, (acc / total[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
    tl.store(log_sum + head * tokens + token, peak + tl.log2(total), mask=inside)


@triton.jit
def query_grad_kernel(queries, keys, values, gates, out_grad, log_sum, delta, query_grad, gate_grad, first, chunk, tokens, pages, scale,
                      G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PAGE: tl.constexpr, GATED: tl.constexpr,
                      SOFT: tl.constexpr):
    """query_grad [B*Hq, n, D] in f32, and in SOFT gate_grad [B*Hq, C, P]: a page's sum over its tokens of the logits' gradients."""
    head = tl.program_id(1).to(tl.int64)
    kv = head // G
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    token = first + row
    inside = (row < chunk) & (token < tokens)
    dims = tl.arange(0, D)
    at = (head * tokens + token[:, None]) * D + dims[None, :]
    q = tl.load(queries + at, mask=inside[:, None], other=0.0)
    do = tl.load(out_grad + at, mask=inside[:, None], other=0.0)
    top = tl.load(log_sum + head * tokens + token, mask=inside, other=0.0)
    mean_grad = tl.load(delta + head * tokens + token, mask=inside, other=0.0)
    acc = tl.zeros((BM, D), tl.float32)
    end = tl.minimum(first + tl.program_id(0) * BM + BM, tokens)
    for start in range(0, end, BN):
        key = start + tl.arange(0, BN)
        known = (key < tokens)[:, None]
        from_kv = (kv * tokens + key[:, None]) * D + dims[None, :]
        k = tl.load(keys + from_kv, mask=known, other=0.0)
        v = tl.load(values + from_kv, mask=known, other=0.0)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * LOG2E)
        page = start // PAGE + tl.arange(0, BN // PAGE)
        if GATED:
            logits += over_tokens(gate_tile(gates, kv, row, page, chunk, pages, inside) * LOG2E, BM, BN, PAGE)
        weight = tl.where(key[None, :] <= token[:, None], tl.exp2(logits - top[:, None]), 0.0)
        grad = weight * (tl.dot(do, tl.trans(v), input_precision="ieee") - mean_grad[:, None])
        acc = tl.dot(grad.to(k.dtype), k, acc, input_precision="ieee")
        if SOFT:
            sums = tl.sum(tl.reshape(grad, (BM, BN // PAGE, PAGE)), 2)
            place = gate_grad + (head * chunk + row[:, None]) * pages + page[None, :]
            tl.store(place, sums, mask=inside[:, None] & (page[None, :] < pages))
    tl.store(query_grad + at, acc * scale, mask=inside[:, None])


@triton.jit
def key_grad_kernel(queries, keys, values, gates, out_grad, log_sum, delta, key_grad, value_grad, first, chunk, tokens, pages, scale,
                    G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PAGE: tl.constexpr, GATED: tl.constexpr):
    """Adds this chunk's part to key_grad and value_grad [B*Hk, n, D] in f32. A program owns BN keys, so nothing collides."""
    kv = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) * BN
    key = start + tl.arange(0, BN)
    dims = tl.arange(0, D)
    known = (key < tokens)[:, None]
    from_kv = (kv * tokens + key[:, None]) * D + dims[None, :]
    k = tl.load(keys + from_kv, mask=known, other=0.0)
    v = tl.load(values + from_kv, mask=known, other=0.0)
    dk = tl.load(key_grad + from_kv, mask=known, other=0.0)
    dv = tl.load(value_grad + from_kv, mask=known, other=0.0)
    page = start // PAGE + tl.arange(0, BN // PAGE)
    skipped = tl.maximum(start - first, 0) // BM * BM
    steps = (chunk - skipped + BM - 1) // BM
    for step in range(0, G * steps):
        head = kv * G + step // steps
        row = skipped + step % steps * BM + tl.arange(0, BM)
        token = first + row
        inside = (row < chunk) & (token < tokens)
        at = (head * tokens + token[:, None]) * D + dims[None, :]
        q = tl.load(queries + at, mask=inside[:, None], other=0.0)
        do = tl.load(out_grad + at, mask=inside[:, None], other=0.0)
        top = tl.load(log_sum + head * tokens + token, mask=inside, other=0.0)
        mean_grad = tl.load(delta + head * tokens + token, mask=inside, other=0.0)
        logits = tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * LOG2E)
        if GATED:
            place = gates + (kv * chunk + row[None, :]) * pages + page[:, None]
            tile = tl.load(place, mask=inside[None, :] & (page[:, None] < pages), other=0.0) * LOG2E
            logits += tl.reshape(tl.broadcast_to(tile[:, None, :], (BN // PAGE, PAGE, BM)), (BN, BM))
        seen = (key[:, None] <= token[None, :]) & inside[None, :]
        weight = tl.where(seen, tl.exp2(logits - top[None, :]), 0.0)
        dv = tl.dot(weight.to(do.dtype), do, dv, input_precision="ieee")
        grad = weight * (tl.dot(v, tl.trans(do), input_precision="ieee") - mean_grad[None, :])
        dk += tl.dot((grad * scale).to(q.dtype), q, input_precision="ieee")
    tl.store(key_grad + from_kv, dk, mask=known)
    tl.store(value_grad + from_kv, dv, mask=known)
