"""FlashInfer's batch decode with a paged KV cache against PyTorch SDPA cuDNN, in one run (docs/performance.md).

    python3 scripts/studies/bench_flashinfer.py [--cases 80x32768,1x131072,1x4096,1x32768] [--page-size 16] [--backends auto]
        [--order shuffled|sorted] [--rounds 31] [--read-gib 8] [--json FILE] [--peer-rows FILE]

Both are CUDA graphs of many calls that rotate over copies of keys and values, timed by the wall clock in alternation, as in
bench_attention.py, so the ratios to SDPA cuDNN connect the two. Requires flashinfer-python; tensor cores are on, as FlashInfer
recommends for grouped queries. Its first use compiles a kernel for minutes unless flashinfer/data/aot contains one.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from attention_timing import (
    NUM_QUERIES,
    commit,
    measure_torch_peak,
    parse_cases,
    peer_rows,
    report,
    sdpa_arms,
    time_arms,
    torch_arm,
    write_json,
    write_peer_rows,
)

if TYPE_CHECKING:
    from attention_timing import Arm, Case


WORKSPACE_BYTES = 512 << 20
TOLERANCE = 2e-2


def page_order(case: Case, order: str) -> torch.Tensor:
    """Physical pages [B * P] i32, sequence after sequence."""
    count = case.batch * case.pages
    if order == "sorted":
        return torch.arange(count, dtype=torch.int32, device="cuda")
    return torch.randperm(count, generator=torch.Generator().manual_seed(2)).int().cuda()


def plan_decode(case: Case, backend: str, indices: Any) -> Any:
    """FlashInfer's wrapper for the case, planned for CUDA graphs."""
    import flashinfer

    indptr = torch.arange(case.batch + 1, dtype=torch.int32, device="cuda") * case.pages
    last = torch.full((case.batch,), (case.context - 1) % case.page_size + 1, dtype=torch.int32, device="cuda")
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace,
        "NHD",
        use_cuda_graph=True,
        use_tensor_cores=True,
        paged_kv_indptr_buffer=indptr.clone(),
        paged_kv_indices_buffer=indices.clone(),
        paged_kv_last_page_len_buffer=last.clone(),
        backend=backend,
    )
    wrapper.plan(
        indptr,
        indices,
        last,
        case.query_heads,
        case.kv_heads,
        case.head_dim,
        case.page_size,
        q_data_type=torch.bfloat16,
        kv_data_type=torch.bfloat16,
    )
    return wrapper


def check_output(case: Case, wrapper: Any, query: Any, cache: Any, indices: Any) -> None:
    """Checks the last sequence's answer against plain attention. query [B, Hq, d]; cache [pages, 2, S, Hk, d]."""
    pages = cache[indices[(case.batch - 1) * case.pages :].long()]
    keys, values = (pages[:, half].reshape(-1, case.kv_heads, case.head_dim)[: case.context].float() for half in (0, 1))
    q = query[-1].float().view(case.kv_heads, -1, case.head_dim)
    weights = torch.softmax(torch.einsum("hgd,nhd->hgn", q, keys) * case.head_dim**-0.5, -1)
    wanted = torch.einsum("hgn,nhd->hgd", weights, values).reshape(case.query_heads, case.head_dim)
    difference = (wrapper.run(query, cache)[-1].float() - wanted).abs().max().item()
    if not difference < TOLERANCE:
        raise ValueError(f"FlashInfer differs from plain attention by {difference:.4f}")


def flashinfer_arms(case: Case, backends: Sequence[str], order: str) -> list[Arm]:
    """One arm per backend, over the same caches."""
    copies = case.copies(case.kv_bytes)
    shape = (case.batch * case.pages, 2, case.page_size, case.kv_heads, case.head_dim)
    caches = [torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_() for _ in range(copies)]
    queries = [torch.randn(case.batch, case.query_heads, case.head_dim, device="cuda").bfloat16() for _ in range(NUM_QUERIES)]
    indices = page_order(case, order)
    arms = []
    for backend in backends:
        wrapper = plan_decode(case, backend, indices)
        check_output(case, wrapper, queries[0], caches[0], indices)

        def body(index: int, wrapper: Any = wrapper) -> torch.Tensor:
            return wrapper.run(queries[index % NUM_QUERIES], caches[index % copies])

        arms.append(torch_arm(f"FlashInfer {backend}", body, case.calls(copies), case.kv_bytes))
    return [arm for arm in arms if arm]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="80x32768,1x131072,1x4096,1x32768", help="batch x context, separated by commas")
    parser.add_argument("--heads", default="32/8")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--backends", default="auto", help="backends of FlashInfer, separated by commas: auto, fa2, fa3")
    parser.add_argument("--order", choices=["shuffled", "sorted"], default="shuffled", help="order of the physical pages")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--read-gib", type=int, default=8, help="0 skips the bandwidth")
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--peer-rows", help="file for FlashInfer's rows, for `pagesift bench attention --peers`")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    import flashinfer

    query_heads, kv_heads = map(int, options.heads.split("/"))
    device = torch.cuda.get_device_name()
    print(
        f"commit {commit()}, {device}, torch {torch.__version__}, flashinfer {flashinfer.__version__}, median of {options.rounds}, "
        "arms alternate"
    )
    peak = measure_torch_peak(options.read_gib) if options.read_gib else None
    if peak:
        print(f"torch.sum reads {options.read_gib} GiB at {peak / 1e9:.0f} GB/s")
    rows, peers = [], []
    program = f"flashinfer {flashinfer.__version__}, page {options.page_size}"
    for case in parse_cases(
        options.cases, query_heads=query_heads, kv_heads=kv_heads, head_dim=options.head_dim, page_size=options.page_size
    ):
        gc.collect()
        torch.cuda.empty_cache()
        arms = flashinfer_arms(case, options.backends.split(","), options.order) + sdpa_arms(case, ["CUDNN_ATTENTION"])
        time_arms(arms, options.rounds)
        rows += report(f"{case.name}, {options.heads} heads of {case.head_dim}, page {case.page_size}, {options.order} pages", arms, peak)
        peers += peer_rows(case, [arm for arm in arms if arm.name.startswith("FlashInfer")], program, device)
        del arms
    write_json(
        options.json, device=device, torch=torch.__version__, flashinfer=flashinfer.__version__, read_bytes_per_second=peak, rows=rows
    )
    write_peer_rows(options.peer_rows, peers)


if __name__ == "__main__":
    main()
