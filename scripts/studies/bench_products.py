"""Products of many tokens on the CPU against PyTorch (oneDNN), alternating in one run (docs/performance.md).

    python3 scripts/studies/bench_products.py [--shapes 512x4096x4096,512x1536x576] [--isa amx,avx512vnni] [--threads 2] [--rounds 21]
        [--library build/cpu/libpagesift_cpu.so]

A shape is tokens x outputs x inputs. Weights are bf16; x is f32 for us and bf16 for PyTorch. Prints the median GFLOP/s of every arm, and
our largest difference from a product in f64, relative to the largest output. Requires torch and NumPy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from pagesift_ctypes import BF16, Device, Tensor

WARM_UP_ROUNDS = 3


def open_device(library: str, isa: str, threads: int) -> Device:
    """A device with this instruction set."""
    os.environ["PAGESIFT_ISA"] = isa
    device = Device(library, num_threads=threads)
    name = device.describe().name.decode()
    assert name == isa, f"{name} instructions, expected {isa}"
    return device


def our_product(device: Device, x: torch.Tensor, weight: torch.Tensor) -> tuple[Callable[[], None], Tensor]:
    """A call that multiplies, and where it writes."""
    ours_x, out = device.upload(x.numpy()), device.tensor((x.shape[0], weight.shape[0]))
    ours_weight = device.tensor(tuple(weight.shape), BF16)
    ours_weight.buffer.write(np.ascontiguousarray(weight.view(torch.int16).numpy()))
    return lambda: device.check(device.library.ps_matmul(device.pointer, ours_x.struct, ours_weight.struct, None, out.struct)), out


def median_seconds(arms: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The arms alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(rounds + WARM_UP_ROUNDS):
        for name, run in arms.items():
            start = time.perf_counter()
            run()
            if index >= WARM_UP_ROUNDS:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="512x4096x4096,512x1536x576,512x576x1536")
    parser.add_argument("--isa", default="amx,avx512vnni")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--library", default="build/cpu/libpagesift_cpu.so")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    devices = {isa: open_device(options.library, isa, options.threads) for isa in options.isa.split(",")}
    print(f"torch {torch.__version__}, {options.threads} threads, median of {options.rounds}")
    for shape in options.shapes.split(","):
        tokens, outputs, inputs = map(int, shape.split("x"))
        x, weight = torch.randn(tokens, inputs), torch.randn(outputs, inputs).bfloat16()
        rounded = x.bfloat16()
        products = {isa: our_product(device, x, weight) for isa, device in devices.items()}
        arms = {isa: run for isa, (run, _) in products.items()}
        arms["oneDNN"] = lambda rounded=rounded, weight=weight: torch.nn.functional.linear(rounded, weight)
        seconds = median_seconds(arms, options.rounds)
        wanted = x.double() @ weight.double().T
        rate = {name: 2e-9 * tokens * outputs * inputs / value for name, value in seconds.items()}
        for isa, (_, out) in products.items():
            error = (torch.from_numpy(out.read()) - wanted).abs().max() / wanted.abs().max()
            share = 100 * rate[isa] / rate["oneDNN"]
            print(f"{shape} {isa}: {rate[isa]:,.0f} GFLOP/s, {share:.0f} % of oneDNN's {rate['oneDNN']:,.0f}, error {error:.1e}")
        for device in devices.values():
            device.free_tensors()


if __name__ == "__main__":
    main()
