"""What the parts of a decode step cost on CUDA: its layers with some operations left out (docs/notes/gpu_step.md).

    python3 scripts/studies/bench_step_parts.py [--shapes qwen3-0.6b,llama-3.2-1b,qwen3-8b] [--tokens 520] [--rounds 12]
        [--budget 0] [--batch 1] [--layers 0] [--weights bf16] [--library build/cuda/libpagesift_cuda.so]

Weights are zeros. With a budget, steps attend to the pages that fit it, of random keys. Groups of pages of several sequences lie
in random order. --layers: how many of the shape's, where not all fit the GPU; 0 for all. Every arm is a recorded graph of all layers;
arms alternate. Prints the median us per layer of each. Exits with 1 unless the native counters show that an arm selects in every layer
where its budget is less than its tokens, and nowhere else. Requires NumPy.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from pagesift_ctypes import BF16, I32, Q4_K, Q8_0, UNIQUE, Cache, Device, Graph, Tensor

EPS = 1e-6
PAGE_TOKENS = 8
GROUP_PAGES = 8
LAUNCHES_PER_ROUND = 8
FILL_TOKENS = 16384
BF16_ONE = 0x3F80
STORE, ADD, SILU_MUL = 0, 1, 2  # ps_ending
WEIGHTS = {"bf16": BF16, "q8_0": Q8_0, "q4_k": Q4_K}
LAMBDA, SINK_PAGES, RECENT_PAGES = 0.5, 1, 2  # of a selection


@dataclass
class Shape:
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    norms_heads: bool


SHAPES = {
    "qwen3-0.6b": Shape(28, 16, 8, 128, 1024, 3072, True),
    "llama-3.2-1b": Shape(16, 32, 8, 64, 2048, 8192, False),
    "qwen3-8b": Shape(36, 32, 8, 128, 4096, 12288, True),
}


def columns(tensor: Tensor, first: int, shape: tuple[int, ...]) -> Tensor:
    """Some columns of a row of f32, in another shape."""
    view = Tensor(tensor.buffer, first * 4, shape, tensor.dtype)
    view.struct.row_stride = tensor.struct.row_stride
    return view


class Layers:
    """The layers of a model of zeros and a cache of some sequences. budget: tokens that steps attend to, or 0 for all."""

    def __init__(self, library: str, shape: Shape, tokens: int, budget: int, batch: int = 1, weights: int = BF16) -> None:
        self.device, self.shape, self.batch, self.tokens = Device(library), shape, batch, tokens
        tensor, heads = self.device.tensor, shape.query_heads + 2 * shape.kv_heads
        pages = -(-tokens // (PAGE_TOKENS * GROUP_PAGES)) * GROUP_PAGES
        self.cache = Cache(
            self.device,
            num_pages=batch * pages,
            max_pages_per_sequence=pages,
            num_layers=shape.layers,
            num_query_heads=shape.query_heads,
            num_kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            page_size=PAGE_TOKENS,
            dtype=BF16,
            max_sequences=batch,
            group_pages=GROUP_PAGES,
        )
        d, width, inner, attended = shape.head_dim, shape.hidden, shape.intermediate, shape.query_heads * shape.head_dim
        sizes = {"qkv": (heads * d, width), "output": (width, attended), "gate_up": (2 * inner, width), "down": (width, inner)}
        norms = {"block_norm": (width,), "next_norm": (width,), "q_norm": (d,), "k_norm": (d,)}
        dtypes = dict.fromkeys(sizes, weights) | dict.fromkeys(norms, BF16)
        self.weights = [{name: tensor(size, dtypes[name]) for name, size in {**sizes, **norms}.items()} for _ in range(shape.layers)]
        self.hidden, self.normed, self.delta, self.product = (tensor((batch, size)) for size in (width, width, width, inner))
        self.attended, self.qkv, self.gate_up = (tensor((batch, size)) for size in (attended, heads * d, 2 * inner))
        self.rope = self.device.upload(np.repeat(np.array([1, 0], np.float32), d // 2)[None].repeat(batch, 0))  # cos and sin of no rotation
        self.q = columns(self.qkv, 0, (batch, shape.query_heads, d))
        self.k = columns(self.qkv, attended, (batch, shape.kv_heads, d))
        self.v = columns(self.qkv, attended + shape.kv_heads * d, (batch, shape.kv_heads, d))
        self.out = Tensor(self.attended.buffer, 0, (batch, shape.query_heads, d), self.attended.dtype)
        self.gate, self.up = columns(self.gate_up, 0, (batch, inner)), columns(self.gate_up, inner, (batch, inner))
        groups = np.arange(batch * pages // GROUP_PAGES, dtype=np.int32)
        if batch > 1:
            np.random.default_rng(3).shuffle(groups)
        table = (groups[:, None] * GROUP_PAGES + np.arange(GROUP_PAGES, dtype=np.int32)).reshape(batch, pages)
        self.all_slots = (table[:, :, None] * PAGE_TOKENS + np.arange(PAGE_TOKENS, dtype=np.int32)).reshape(batch, -1)
        self.slots = self.device.upload(np.ascontiguousarray(self.all_slots[:, tokens - 1]))
        self.table = self.device.upload(table)
        self.lengths = self.device.upload(np.full(batch, tokens, np.int32))
        self.budget, self.bias = budget, None
        if budget:
            self.place_selection(pages)
            self.fill(tokens)

    def place_selection(self, pages: int) -> None:
        """Room for scores and selected pages, and queries that are not zero."""
        device, shape, batch, k = self.device, self.shape, self.batch, self.budget // PAGE_TOKENS
        self.scores, self.counts = device.tensor((batch, shape.kv_heads, pages)), device.tensor((batch, shape.kv_heads), I32)
        self.selected = device.tensor((batch, shape.kv_heads, k), I32)
        heads = shape.query_heads + 2 * shape.kv_heads
        self.bias = device.upload(np.random.default_rng(1).standard_normal(heads * shape.head_dim, np.float32))
        for weights in self.weights:
            weights["q_norm"].buffer.write(np.full(shape.head_dim, BF16_ONE, np.uint16))

    def fill(self, tokens: int) -> None:
        """Appends random keys, which resemble their neighbours in the page, to all layers."""
        rng = np.random.default_rng(2)
        size = (FILL_TOKENS, self.shape.kv_heads, self.shape.head_dim)
        shared = np.repeat(rng.standard_normal((FILL_TOKENS // PAGE_TOKENS, *size[1:]), np.float32), PAGE_TOKENS, 0)
        keys = self.device.upload(0.7 * shared + 0.7 * rng.standard_normal(size, np.float32))
        slots = self.device.upload(np.ascontiguousarray(self.all_slots[:, :tokens]).reshape(-1))
        for layer in range(self.shape.layers):
            for sequence in range(self.batch):
                for first in range(0, tokens, FILL_TOKENS):
                    count = min(FILL_TOKENS, tokens - first)
                    self.cache.append(layer, keys.rows(0, count), keys.rows(0, count), slots.rows(sequence * tokens + first, count))
        self.device.wait()

    def call(self, name: str, *arguments: object) -> None:
        """An operation of the library; tensors become their structs."""
        found = [argument.struct if isinstance(argument, Tensor) else argument for argument in arguments]
        self.device.check(getattr(self.device.library, name)(*found))

    def append(self, layer: int, joined: bool) -> None:
        weights, cache = self.weights[layer], self.cache.pointer
        norms = (weights["q_norm"], weights["k_norm"]) if self.shape.norms_heads else (None, None)
        rotated = (cache, layer, EPS, *norms, self.rope, self.rope, self.q, self.k, self.v, self.slots)
        scale = self.shape.head_dim**-0.5
        if joined and self.budget:
            options = (UNIQUE, LAMBDA, SINK_PAGES, RECENT_PAGES, scale)
            work = (self.scores, self.selected, self.counts)
            self.call("ps_append_sparse_attention", *rotated, *options, self.table, self.lengths, *work, self.out)
        elif joined:
            self.call("ps_append_attend", *rotated, scale, 0, self.table, self.lengths, self.out)
        else:
            self.call("ps_append_rotated", *rotated)

    def attend(self, layer: int) -> None:
        if self.budget:
            self.cache.attend_sparse(layer, self.q, self.table, self.lengths, self.scores, self.selected, self.counts, self.out)
        else:
            self.cache.attend(layer, self.q, self.table, self.lengths, self.out)

    def fused_feed_forward(self, layer: int) -> None:
        """The same with norms, sums and activations in the products."""
        device, weights, following = self.device.pointer, self.weights[layer], self.weights[(layer + 1) % self.shape.layers]

        def fused(
            x: Tensor,
            norm: Tensor | None,
            weight: Tensor,
            ending: int,
            product: Tensor | None,
            out: Tensor,
            next_norm: Tensor | None = None,
        ) -> None:
            normed, next_normed = self.normed if norm else None, self.normed if next_norm else None
            bias = self.bias if out is self.qkv else None
            self.call("ps_fused_matmul", device, x, norm, EPS, weight, bias, ending, normed, product, out, next_norm, next_normed)

        fused(self.attended, None, weights["output"], ADD, self.delta, self.hidden, weights["block_norm"])
        fused(self.hidden, weights["block_norm"], weights["gate_up"], SILU_MUL, self.gate_up, self.product)
        fused(self.product, None, weights["down"], ADD, self.delta, self.hidden, weights["next_norm"])
        fused(self.hidden, weights["next_norm"], following["qkv"], STORE, None, self.qkv)

    def feed_forward(self, layer: int) -> None:
        """From attention to the projections of the next layer."""
        device, weights, following = self.device.pointer, self.weights[layer], self.weights[(layer + 1) % self.shape.layers]
        self.call("ps_matmul", device, self.attended, weights["output"], None, self.delta)
        self.call("ps_add_rms_norm", device, self.hidden, self.delta, weights["block_norm"], EPS, self.normed)
        if self.batch > 1:
            gate_up = (self.normed, None, EPS, weights["gate_up"], None, SILU_MUL, None, self.gate_up, self.product, None, None)
            self.call("ps_fused_matmul", device, *gate_up)
        else:
            self.call("ps_matmul", device, self.normed, weights["gate_up"], None, self.gate_up)
            self.call("ps_silu_mul", device, self.gate, self.up, self.product)
        self.call("ps_matmul", device, self.product, weights["down"], None, self.delta)
        self.call("ps_add_rms_norm", device, self.hidden, self.delta, weights["next_norm"], EPS, self.normed)
        self.call("ps_matmul", device, self.normed, following["qkv"], self.bias, self.qkv)

    def step(self, append: bool = True, attend: bool = True, joined: bool = False, feed_forward: bool = True, fused: bool = False) -> None:
        for layer in range(self.shape.layers):
            if append or joined:
                self.append(layer, joined)
            if attend and not joined:
                self.attend(layer)
            if fused:
                self.fused_feed_forward(layer)
            elif feed_forward:
                self.feed_forward(layer)

    def record(self, arm: dict[str, bool]) -> Graph:
        self.step(**arm)  # first unrecorded, for what it allocates
        self.device.wait()
        graph = self.device.record(lambda: self.step(**arm))
        self.check_selections(arm, graph.launch)
        return graph

    def check_selections(self, arm: dict[str, bool], run: Callable[[], None]) -> None:
        """Runs a step of the arm. Exits unless the native counters show that all of its layers, or none, selected pages."""
        attends = arm.get("joined") or arm.get("attend", True)
        wanted = self.shape.layers if attends and 0 < self.budget < self.tokens else 0
        before = self.cache.counters().selections
        run()
        self.device.wait()
        found = self.cache.counters().selections - before
        if found != wanted:
            raise SystemExit(f"{found} layers selected pages, expected {wanted} (tokens {self.tokens}, budget {self.budget}, arm {arm})")

    def close(self) -> None:
        self.cache.close()
        self.device.close()


ARMS: dict[str, dict[str, bool]] = {
    "products fused, append and attention joined": {"joined": True, "fused": True},
    "products fused, neither append nor attention": {"append": False, "attend": False, "fused": True},
    "append and attention joined": {"joined": True},
    "one after the other": {},
    "no append": {"append": False},
    "no attention": {"attend": False},
    "neither": {"append": False, "attend": False},
    "only both, joined": {"joined": True, "feed_forward": False},
    "only both, one after the other": {"feed_forward": False},
}

BATCH_ARMS: dict[str, dict[str, bool]] = {
    "products fused, append and attention": {"fused": True},
    "products fused, neither": {"append": False, "attend": False, "fused": True},
    "all": {},
    "no append": {"append": False},
    "no attention": {"attend": False},
    "neither": {"append": False, "attend": False},
    "only both": {"feed_forward": False},
    "only attention": {"append": False, "feed_forward": False},
}

SPARSE_ARMS: dict[str, dict[str, bool]] = {
    "products, append and sparse attention joined": {"joined": True, "fused": True},
    "products, append, sparse attention": {"fused": True},
    "products, sparse attention": {"append": False, "fused": True},
    "products, append": {"attend": False, "fused": True},
    "products": {"append": False, "attend": False, "fused": True},
    "append and sparse attention joined": {"joined": True, "feed_forward": False},
    "append, sparse attention": {"feed_forward": False},
    "sparse attention": {"append": False, "feed_forward": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--tokens", type=int, default=520)
    parser.add_argument("--budget", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1, help="sequences")
    parser.add_argument("--layers", type=int, default=0, help="0 for all of the shape")
    parser.add_argument("--weights", choices=WEIGHTS, default="bf16", help="of the products")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--library", default="build/cuda/libpagesift_cuda.so")
    options = parser.parse_args()
    for name in options.shapes.split(","):
        shape = replace(SHAPES[name], layers=options.layers or SHAPES[name].layers)
        layers = Layers(options.library, shape, options.tokens, options.budget, options.batch, WEIGHTS[options.weights])
        arms = BATCH_ARMS if options.batch > 1 else SPARSE_ARMS if options.budget else ARMS
        graphs = {arm: layers.record(given) for arm, given in arms.items()}
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(options.rounds):
            for arm, graph in graphs.items():
                graph.launch()
                layers.device.wait()
                start = time.perf_counter()
                for _ in range(LAUNCHES_PER_ROUND):
                    graph.launch()
                layers.device.wait()
                seconds[arm].append((time.perf_counter() - start) / LAUNCHES_PER_ROUND)
        for arm, values in seconds.items():
            print(f"{name}: {arm}: {statistics.median(values) / shape.layers * 1e6:.2f} us per layer", flush=True)
        for graph in graphs.values():
            graph.close()
        layers.close()


if __name__ == "__main__":
    main()
