"""Compiles the kernels for an H100 or H200 without having one: registers, spilled bytes and shared memory of each.

    python -m train.attention.compile_check [--head-dim 64 128] [--capability 90]

Exits with code 1 if a kernel spills more than a few registers or requires more shared memory than a multiprocessor has.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import attend_kernels, score_kernels
from .fused import tile_of

SHARED_BYTES = 227 << 10
# The fastest tile of key_grad_kernel spills 16 bytes per thread (train.attention.tune, H100).
MOST_SPILLED_BYTES = 32
POINTERS = {"queries": "bf16", "keys": "bf16", "values": "bf16", "out_grad": "bf16", "mean": "bf16", "top_head": "i8"}
NUMBERS = {"scale": "fp32", "lam": "fp32", "inverse_temperature": "fp32"}
SELECTION = dict(PAGE=8, SINK=1, RECENT=2, BUDGET=16, HARD=False)
SCALARS = {"first", "chunk", "tokens", "pages", "stored_pages"}


def compile_kernel(kernel: Any, constants: dict[str, Any], launch: Any, capability: int, output: Any) -> str | None:
    """Prints one line of facts about a kernel. Returns None if it is as expected, otherwise the problem."""

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name in SCALARS or name in NUMBERS:
            return NUMBERS.get(name, "i32")
        if name == "spread":
            return "*bf16" if constants["DIAG"] else "*fp32"
        return "*" + (output if name == "out" else POINTERS.get(name, "fp32"))

    names = kernel.arg_names
    kinds = {name: kind(name) for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if kinds[name].startswith("*")}
    source = ASTSource(
        fn=kernel, signature=kinds, constexprs={(names.index(name),): value for name, value in constants.items()}, attrs=aligned
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)
    registers, spilled = assemble(compiled.asm["ptx"], capability)
    shared = compiled.metadata.shared
    print(
        f"{kernel.__name__:18} head {constants.get('D', '-'):>3}  registers {registers:3}  spilled bytes {spilled}  "
        f"shared {shared / 1024:.0f} KiB  {launch}",
        flush=True,
    )
    return f"{kernel.__name__} spills {spilled} bytes, shared {shared}" if spilled > MOST_SPILLED_BYTES or shared > SHARED_BYTES else None


def assemble(ptx: str, capability: int) -> Iterator[int]:
    """Registers per thread and spilled bytes, as reported by the assembler in Triton."""
    assembler = Path(triton.__path__[0]) / "backends/nvidia/bin/ptxas"
    with tempfile.NamedTemporaryFile(suffix=".ptx", mode="w") as file:
        file.write(ptx)
        file.flush()
        name = f"sm_{capability}" + ("a" if capability == 90 else "")
        report = subprocess.run([assembler, "-v", "--gpu-name", name, file.name, "-o", "/dev/null"], capture_output=True, text=True).stderr
    return (int(re.search(pattern, report)[1]) for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))


def kernels_of(head_dim: int) -> Any:
    """(kernel, constants, launch options, dtype of `out`) of every kernel that training launches for these heads."""

    def tile(name: str, columns: str) -> Any:
        rows, others, launch = tile_of(name, head_dim, 8)
        return dict(G=4, D=head_dim, BM=rows, **{columns: others}), launch

    attend = dict(PAGE=8, GATED=True)
    for name, kernel, more in (
        ("forward", attend_kernels.forward_kernel, {}),
        ("query_grad", attend_kernels.query_grad_kernel, {"SOFT": True}),
        ("key_grad", attend_kernels.key_grad_kernel, {}),
    ):
        constants, launch = tile(name, "BN")
        yield kernel, {**constants, **attend, **more}, launch, "bf16"
    for gate, diag in itertools.product((False, True), repeat=2):
        constants, launch = tile("score", "BP")
        yield score_kernels.score_kernel, {**constants, **SELECTION, "GATE": gate, "DIAG": diag}, launch, "fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head-dim", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--capability", type=int, default=90)
    options = parser.parse_args()
    cases = [case for dim in options.head_dim for case in kernels_of(dim)]
    cut = dict(SELECTION, RANKED=13, COLUMNS=4096)
    problems = [
        compile_kernel(kernel, constants, launch, options.capability, output)
        for kernel, constants, launch, output in [*cases, (score_kernels.cut_kernel, cut, dict(num_warps=8), "fp32")]
    ]
    sys.exit("\n".join(filter(None, problems)) or 0)


if __name__ == "__main__":
    main()
