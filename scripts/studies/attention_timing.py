"""Shared by the attention benchmarks: cases, alternating arms, medians, PyTorch's attention, the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


L2_BYTES = 64 << 20
NUM_QUERIES = 4


@dataclass(frozen=True)
class Case:
    """Decode attention of one layer: one query per sequence. Context and budget in tokens; keys and values in bf16."""

    batch: int
    context: int
    query_heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    page_size: int = 8
    budget: int = 512

    @property
    def name(self) -> str:
        return f"batch {self.batch}, context {self.context}"

    @property
    def kv_bytes(self) -> int:
        """Keys and values of one layer."""
        return self.batch * self.context * self.kv_heads * self.head_dim * 2 * 2

    @property
    def pages(self) -> int:
        return -(-self.context // self.page_size)

    def copies(self, touched_bytes: int) -> int:
        """Number of layers to rotate over, so that a call finds nothing in the L2 cache."""
        return max(2, min(96, -(-4 * L2_BYTES // touched_bytes)))

    def calls(self, copies: int) -> int:
        """Calls in one graph: long enough that launch and wait are negligible; all copies equally often."""
        wanted = 16 if self.kv_bytes > 1 << 30 else 64
        return copies * -(-wanted // copies)


@dataclass
class Arm:
    """`launch` starts `calls` calls, `wait` returns when they are done. `work`: bytes that must move, or flop, per call."""

    name: str
    launch: Callable
    wait: Callable
    calls: int
    work: float
    seconds: list = field(default_factory=list)
    close: Callable = lambda: None
    keeps: object = None  # objects that a graph reads but does not own

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


def parse_cases(text: str, **shape: int) -> list[Case]:
    """'80x32768,1x4096' -> cases of batch x context."""
    return [Case(*map(int, part.split("x")), **shape) for part in text.split(",") if part]


def time_arms(arms: list[Arm], rounds: int) -> None:
    """Wall-clock seconds per call, with alternating arms."""
    for arm in arms * 2:
        arm.launch()
        arm.wait()
    for _ in range(rounds):
        for arm in arms:
            started = time.perf_counter()
            arm.launch()
            arm.wait()
            arm.seconds.append((time.perf_counter() - started) / arm.calls)


def record_torch(body: Callable[[int], object], calls: int) -> torch.cuda.CUDAGraph:
    """A CUDA graph of body(0) .. body(calls - 1)."""
    import torch

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for index in range(3):
            body(index)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(calls):
            body(index)
    return graph


def torch_arm(name: str, body: Callable[[int], object], calls: int, work: float) -> Arm | None:
    """An arm of a PyTorch graph, or None with a line on stderr if PyTorch refuses it."""
    import torch

    try:
        graph = record_torch(body, calls)
    except RuntimeError as error:
        print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
        torch.cuda.synchronize()
        return None
    return Arm(name, graph.replay, torch.cuda.synchronize, calls, work, keeps=body)


def sdpa_body(backend: str, queries: Any, keys: Any, values: Any, causal: bool = False) -> Callable[[int], torch.Tensor]:
    """Call number i of PyTorch's attention over rotated queries [B, Hq, T, d], keys and values [B, Hk, n, d]."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    def body(index: int) -> torch.Tensor:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return scaled_dot_product_attention(
                queries[index % len(queries)], keys[index % len(keys)], values[index % len(values)], is_causal=causal, enable_gqa=True
            )

    return body


def sdpa_arms(case: Case, backends: Sequence[str] = ("CUDNN_ATTENTION", "FLASH_ATTENTION")) -> list[Arm]:
    """PyTorch's decode attention on the case's shape; its tensors live as long as the arms."""
    import torch

    copies = case.copies(case.kv_bytes)
    calls = case.calls(copies)

    def random(heads: int, tokens: int, count: int) -> list[torch.Tensor]:
        shape = (case.batch, heads, tokens, case.head_dim)
        return [torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_() for _ in range(count)]

    queries = random(case.query_heads, 1, NUM_QUERIES)
    keys, values = random(case.kv_heads, case.context, copies), random(case.kv_heads, case.context, copies)
    arms = [
        torch_arm(f"SDPA {backend.split('_')[0].lower()}", sdpa_body(backend, queries, keys, values), calls, case.kv_bytes)
        for backend in backends
    ]
    return [arm for arm in arms if arm]


def measure_torch_peak(gib: float, rounds: int = 21) -> float:
    """Bytes per second of reading `gib` GiB of random numbers with a sum."""
    import torch

    words = torch.empty(gib << 28, dtype=torch.int32, device="cuda").random_()
    arm = Arm("read", lambda: torch.sum(words, dtype=torch.int32), torch.cuda.synchronize, 1, gib << 30)
    time_arms([arm], rounds)
    return arm.work / arm.median


def report(case_name: str, arms: list[Arm], peak: float, unit: str = "GB/s", base: str = "SDPA cudnn") -> list[dict[str, Any]]:
    """Prints a table and returns its rows. peak: work per second, or None. Speed against `base` uses the medians of this run."""
    reference = next((arm.median for arm in arms if arm.name == base), None)
    scale = 1e9 if unit == "GB/s" else 1e12
    print(f"\n{case_name}\n\n| arm | us | p10 | p90 | {'MB' if unit == 'GB/s' else 'GFLOP'} | {unit} | of peak | speed / {base} |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for arm in arms:
        low, high = np.percentile(arm.seconds, [10, 90])
        rate = arm.work / arm.median
        row = dict(
            case=case_name,
            arm=arm.name,
            us=arm.median * 1e6,
            us_p10=low * 1e6,
            us_p90=high * 1e6,
            work=arm.work,
            rate=rate,
            unit=unit,
            of_peak=rate / peak if peak and arm.work else None,
            speed_over_base=reference / arm.median if reference else None,
            calls_per_graph=arm.calls,
        )
        rows.append(row)
        share = f"{row['of_peak']:.0%}" if row["of_peak"] else ""
        ratio = f"{row['speed_over_base']:.2f}" if reference else ""
        work = [f"{arm.work * 1e3 / scale:.1f}", f"{rate / scale:.0f}"] if arm.work else ["", ""]
        print(f"| {arm.name} | {row['us']:.1f} | {low * 1e6:.1f} | {high * 1e6:.1f} | {' | '.join(work)} | {share} | {ratio} |")
    sys.stdout.flush()
    return rows


def peer_rows(case: Case, arms: list[Arm], program: str, device: str) -> list[dict[str, Any]]:
    """Rows of other programs for `pagesift bench attention --peers FILE` (docs/bench.md)."""
    rows = []
    for arm in arms:
        low, high = np.percentile(arm.seconds, [10, 90])
        rows.append(
            dict(
                subject="attention",
                arm=arm.name.lower(),
                batch=case.batch,
                context_tokens=case.context,
                query_heads=case.query_heads,
                kv_heads=case.kv_heads,
                head_dim=case.head_dim,
                dtype="bf16",
                samples=len(arm.seconds),
                median_us=arm.median * 1e6,
                low_us=low * 1e6,
                high_us=high * 1e6,
                bytes=arm.work,
                program=program,
                device=device,
                command=" ".join(["python3", *sys.argv]),
            )
        )
    return rows


def write_peer_rows(path: str, rows: list[dict[str, Any]]) -> None:
    """Writes JSON Lines; nothing without a path."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    """The measured commit: PAGESIFT_COMMIT, or git's, marked if files differ from it."""
    if os.environ.get("PAGESIFT_COMMIT"):
        return os.environ["PAGESIFT_COMMIT"]
    try:
        return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "csrc") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_json(path: str, **facts: Any) -> None:
    """Writes the facts of a run with its command and commit; nothing without a path."""
    if not path:
        return
    with open(path, "w", encoding="utf-8") as file:
        json.dump(dict(command=" ".join(["python3", *sys.argv]), commit=commit(), **facts), file, indent=1)
