"""Decode and prefill attention of libpagesift_cuda.so against PyTorch SDPA, in one process and one run (docs/performance.md).

    python3 scripts/studies/bench_attention.py [--cases 80x32768,1x131072,1x4096,1x32768] [--scorer unique|diag]
        [--way groups|coarse|pages] [--order shuffled|scattered|sorted]
        [--rounds 31] [--prefill 16384] [--prefill-chunk 0] [--scan-gib 8] [--no-torch]
        [--library FILE] [--json FILE] [--peer-rows FILE]

Ours and PyTorch's work are CUDA graphs of many calls that rotate over layers and queries, so that nothing is found in the L2 cache.
Wall-clock time runs from launch to the end of the wait, and arms alternate. A library that cannot record (the CPU's) is called directly.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pagesift_ctypes as ps
from attention_timing import (
    Arm,
    Case,
    commit,
    parse_cases,
    peer_rows,
    report,
    sdpa_arms,
    sdpa_body,
    time_arms,
    torch_arm,
    write_json,
    write_peer_rows,
)
from our_attention import SCORERS, Contents, OurCase, our_arm

if TYPE_CHECKING:
    from pagesift_ctypes import Cache, Device


ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def measure_peak(device: Device, gib: float) -> float:
    """Bytes per second of ps_buffer_scan over random numbers."""
    tensor = device.tensor((gib << 28,))
    block = np.random.default_rng(4).integers(0, 1 << 32, 1 << 24, np.uint32)
    for offset in range(0, gib << 30, block.nbytes):
        tensor.buffer.write(block, offset)
    arm = Arm("scan", tensor.buffer.scan, device.wait, 1, gib << 30)
    time_arms([arm], 21)
    device.free_tensors()
    print(f"read bandwidth of {gib} GiB: {arm.work / arm.median / 1e9:.0f} GB/s")
    return arm.work / arm.median


def bench_decode(device: Device, case: Case, options: argparse.Namespace, peak: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Prints one table. Returns its rows, and PyTorch's rows for other programs."""
    ours = OurCase(device, case, options.scorer, options.way, options.order)
    parts = ours.arms()
    arms = [*parts.values(), *([] if options.no_torch else sdpa_arms(case))]
    time_arms(arms, options.rounds)
    name = f"{case.name}, {case.query_heads}/{case.kv_heads} heads of {case.head_dim}, page {case.page_size}, budget {case.budget}, "
    name += f"{options.scorer}, {options.way}, {options.order} pages"
    rows = report(name, arms, peak)
    share = parts["select"].median / sum(parts[part].median for part in ("score", "select", "attend"))
    gain = parts["dense"].median / parts["sparse"].median
    recall = ours.recall()
    print(
        f"\nselection {share:.1%} of the three kernels; sparse {gain:.2f} times as fast as our dense; recall of exact bf16 scoring "
        f"{recall:.2%} (random keys); {ours.layers} layers, {ours.calls} calls per graph"
    )
    rows[0].update(selection_share=share, page_recall=recall, layers=ours.layers)
    peers = peer_rows(
        case, [arm for arm in arms if arm.name.startswith("SDPA")], f"pytorch {torch_version(options)}", device.describe().name.decode()
    )
    for arm in arms:
        arm.close()
    ours.close()
    return rows, peers


def our_prefill_arm(device: Device, cache: Cache, case: Case, chunk: int, flop: float) -> Arm:
    """Causal attention of the whole context, `chunk` tokens per call of the operation."""
    rng = np.random.default_rng(5)
    table = device.upload(np.arange(case.pages, dtype=np.int32))
    queries = device.upload(rng.standard_normal((case.context, case.query_heads, case.head_dim), np.float32))
    out = device.tensor(queries.shape)

    def prefill(call: int) -> None:
        for start in range(0, case.context, chunk):
            count = min(chunk, case.context - start)
            cache.prefill(call % 2, start, queries.rows(start, count), table, out.rows(start, count))

    return our_arm(device, "ours: prefill", prefill, 4, flop)


def torch_prefill_arms(case: Case, flop: float) -> list[Arm]:
    """PyTorch's causal attention, cuDNN's and flash."""
    import torch

    def random(heads: int) -> torch.Tensor:
        return torch.empty(1, heads, case.context, case.head_dim, dtype=torch.bfloat16, device="cuda").normal_()

    queries, keys, values = ([random(heads) for _ in range(2)] for heads in (case.query_heads, case.kv_heads, case.kv_heads))
    arms = [
        torch_arm(f"SDPA {name.lower()}", sdpa_body(f"{name}_ATTENTION", queries, keys, values, causal=True), 4, flop)
        for name in ("CUDNN", "FLASH")
    ]
    return [arm for arm in arms if arm]


def bench_prefill(device: Device, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Causal attention of one sequence, 4 d operations per pair of tokens. Returns the table's rows."""
    case = Case(1, options.prefill, **shape_of(options))
    chunk = options.prefill_chunk or case.context
    cache = ps.Cache(
        device,
        num_pages=case.pages,
        max_pages_per_sequence=case.pages,
        num_layers=2,
        num_query_heads=case.query_heads,
        num_kv_heads=case.kv_heads,
        head_dim=case.head_dim,
        page_size=case.page_size,
        dtype=ps.BF16,
        statistics=0,
        max_sequences=1,
    )
    Contents(device, case).fill(cache, 2, device.upload(np.arange(case.context, dtype=np.int32)))
    flop = 2 * case.query_heads * case.head_dim * case.context * (case.context + 1)
    arms = [our_prefill_arm(device, cache, case, chunk, flop)]
    arms += [] if options.no_torch else torch_prefill_arms(case, flop)
    time_arms(arms, options.rounds)
    rows = report(
        f"causal prefill of {case.context} tokens in chunks of {chunk}, {case.query_heads}/{case.kv_heads} heads of {case.head_dim}",
        arms,
        None,
        "TFLOP/s",
    )
    for arm in arms:
        arm.close()
    cache.close()
    device.free_tensors()
    return rows


def shape_of(options: argparse.Namespace) -> dict[str, int]:
    query_heads, kv_heads = map(int, options.heads.split("/"))
    return dict(query_heads=query_heads, kv_heads=kv_heads, head_dim=options.head_dim, page_size=options.page_size, budget=options.budget)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="80x32768,1x131072,1x4096,1x32768", help="batch x context, separated by commas")
    parser.add_argument("--heads", default="32/8")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--page-size", type=int, default=8)
    parser.add_argument("--budget", type=int, default=512, help="tokens")
    parser.add_argument("--scorer", choices=[*SCORERS], default="unique", help="how pages are scored")
    parser.add_argument(
        "--way",
        choices=["groups", "coarse", "pages"],
        default="groups",
        help="what is scored first: groups of 8 pages, copies, or all pages",
    )
    parser.add_argument("--order", choices=["shuffled", "scattered", "sorted"], default="shuffled", help="order of the physical pages")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--prefill", type=int, default=16384, help="tokens; 0 skips it")
    parser.add_argument("--prefill-chunk", type=int, default=0, help="tokens; 0 means all at once")
    parser.add_argument("--scan-gib", type=int, default=8, help="0 skips the bandwidth")
    parser.add_argument("--no-torch", action="store_true", help="ours alone")
    parser.add_argument("--library", default=os.path.join(ROOT, "build", "cuda", "libpagesift_cuda.so"))
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--peer-rows", help="file for PyTorch's rows, for `pagesift bench attention --peers`")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    device = ps.Device(options.library)
    info = device.describe()
    version = torch_version(options)
    print(f"commit {commit()}, {info.name.decode()}, torch {version}, median of {options.rounds}, arms alternate")
    peak = measure_peak(device, options.scan_gib) if options.scan_gib else None
    rows, peers = [], []
    for case in parse_cases(options.cases, **shape_of(options)):
        ours, theirs = bench_decode(device, case, options, peak)
        rows += ours
        peers += theirs
        free_torch(options)
    if options.prefill:
        rows += bench_prefill(device, options)
    write_json(options.json, device=info.name.decode(), torch=version, read_bytes_per_second=peak, rows=rows)
    write_peer_rows(options.peer_rows, peers)
    device.close()


def torch_version(options: argparse.Namespace) -> str:
    """PyTorch's version, or "none" if it is not used."""
    if options.no_torch:
        return "none"
    import torch

    return torch.__version__


def free_torch(options: argparse.Namespace) -> None:
    """Frees the memory that PyTorch caches, for the next case."""
    if options.no_torch:
        return
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
