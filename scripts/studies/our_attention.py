"""Our decode attention on a case's shape: a filled cache, the operations as numbered calls, and checks of their counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pagesift_ctypes as ps
from attention_timing import NUM_QUERIES, Arm

if TYPE_CHECKING:
    from attention_timing import Case
    from pagesift_ctypes import Cache, Device, Tensor


CHUNK_TOKENS = 16384
SPREAD_TOKENS = 8192
SINK_PAGES, RECENT_PAGES = 1, 2
SCORERS = {"unique": (ps.UNIQUE, 0.5), "diag": (ps.DIAG, 2.0)}


def to_bf16(numbers: np.ndarray) -> np.ndarray:
    """f32 numbers rounded to bf16, as f32."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


class Contents:
    """Keys and values of a cache: every piece of a sequence is a stretch of the same random numbers at another offset."""

    def __init__(self, device: Device, case: Case) -> None:
        rng = np.random.default_rng(1)
        self.case, self.piece = case, min(CHUNK_TOKENS, case.context)
        shape = (self.piece + SPREAD_TOKENS, case.kv_heads, case.head_dim)

        def shared(tokens: int) -> np.ndarray:
            """Noise that `tokens` neighbours share, so that neighbouring keys resemble each other."""
            return np.repeat(rng.standard_normal((-(-shape[0] // tokens), *shape[1:]), np.float32), tokens, 0)[: shape[0]]

        self.keys = 0.6 * shared(64) + 0.5 * shared(8) + 0.6 * shared(1)
        self.device_keys = device.upload(self.keys)
        self.device_values = device.upload(rng.standard_normal(shape, np.float32))

    def pieces(self, layer: int, sequence: int) -> Iterator[Any]:
        """(first token, tokens, offset in the numbers) of the pieces of a sequence."""
        for index, first in enumerate(range(0, self.case.context, self.piece)):
            yield first, min(self.piece, self.case.context - first), (layer * 53 + sequence * 37 + index * 101) * 64 % SPREAD_TOKENS

    def fill(self, cache: Cache, layers: int, slots: np.ndarray) -> None:
        """Appends all sequences to all layers. slots [B * n] i32, in the order of the tokens."""
        for layer in range(layers):
            for sequence in range(self.case.batch):
                for first, tokens, offset in self.pieces(layer, sequence):
                    cache.append(
                        layer,
                        self.device_keys.rows(offset, tokens),
                        self.device_values.rows(offset, tokens),
                        slots.rows(sequence * self.case.context + first, tokens),
                    )

    def keys_of(self, layer: int, sequence: int) -> np.ndarray:
        """[n, Hk, d] f32, as stored."""
        return to_bf16(np.concatenate([self.keys[at : at + tokens] for _, tokens, at in self.pieces(layer, sequence)]))

    def queries(self, rng: np.random.Generator) -> np.ndarray:
        """[B, Hq, d] f32: each near some key, as in a model."""
        case = self.case
        rows = rng.integers(0, len(self.keys), (case.batch, case.query_heads))
        near = self.keys[rows, np.arange(case.query_heads) // (case.query_heads // case.kv_heads)]
        return 0.35 * near + 0.5 * rng.standard_normal(near.shape).astype(np.float32)


class OurCase:
    """A filled cache of the case's shape, and the operations as calls numbered from 0.

    scorer: a name of SCORERS. way: how ps_page_choose scores: "groups" of 8 pages first, "coarse" copies of all pages first, or "pages",
    every page.
    order: of the physical pages.
    """

    def __init__(self, device: Device, case: Case, scorer: str, way: str, order: str) -> None:
        self.device, self.case, self.scorer = device, case, scorer
        self.scoring = dict(zip(("scorer", "lam"), SCORERS[scorer], strict=True))
        self.row_bytes = 4 * case.head_dim if scorer == "diag" else 2 * case.head_dim + 4
        self.coarse_bytes = 0 if way != "coarse" else case.head_dim * 5 // 4 + 4 if scorer == "diag" else case.head_dim + 8
        self.rows = case.batch * case.kv_heads
        self.k = case.budget // case.page_size
        self.chosen = min(self.k, case.pages)
        self.attend_bytes = self.rows * self.chosen * case.page_size * case.head_dim * 4
        scored = min(case.pages, case.pages // 8 + 8 * self.k) if way == "groups" else case.pages
        self.layers = case.copies(self.rows * scored * (self.coarse_bytes or self.row_bytes) + self.attend_bytes)
        self.calls = case.calls(self.layers)
        self.pages = -(-case.pages // 8) * 8
        self.cache = ps.Cache(
            device,
            num_pages=case.batch * self.pages,
            max_pages_per_sequence=self.pages,
            num_layers=self.layers,
            num_query_heads=case.query_heads,
            num_kv_heads=case.kv_heads,
            head_dim=case.head_dim,
            page_size=case.page_size,
            dtype=ps.BF16,
            statistics=(ps.STATISTICS_VARIANCE if scorer == "diag" else 0) | (ps.STATISTICS_COARSE if way == "coarse" else 0),
            max_sequences=case.batch,
            group_pages=8 if way == "groups" else 0,
        )
        self._place_tables(order)
        self.contents = Contents(device, case)
        self.contents.fill(self.cache, self.layers, self.slots)
        self._place_activations()

    def _place_tables(self, order: str) -> None:
        """The order of physical pages: "shuffled" keeps runs of 8, "scattered" does not."""
        case = self.case
        unit = 1 if order == "scattered" else 8
        runs = np.arange(case.batch * self.pages // unit, dtype=np.int32)
        if order != "sorted":
            np.random.default_rng(2).shuffle(runs)
        table = (runs[:, None] * unit + np.arange(unit, dtype=np.int32)).reshape(case.batch, self.pages)
        slots = (table[:, :, None] * case.page_size + np.arange(case.page_size, dtype=np.int32)).reshape(case.batch, -1)
        self.table = self.device.upload(table)
        self.slots = self.device.upload(np.ascontiguousarray(slots[:, : case.context]).reshape(-1))
        self.lengths = self.device.upload(np.full(case.batch, case.context, np.int32))

    def _place_activations(self) -> None:
        case, device = self.case, self.device
        rng = np.random.default_rng(3)
        self.queries = [device.upload(self.contents.queries(rng)) for _ in range(NUM_QUERIES)]
        self.out = device.tensor((case.batch, case.query_heads, case.head_dim))
        self.scores = device.tensor((case.batch, case.kv_heads, self.pages))
        self.selected = device.tensor((self.calls * case.batch, case.kv_heads, self.k), ps.I32)
        self.counts = device.tensor((self.calls * case.batch, case.kv_heads), ps.I32)
        self.spare = device.tensor((case.batch, case.kv_heads, self.k), ps.I32), device.tensor((case.batch, case.kv_heads), ps.I32)

    def _inputs(self, call: int) -> tuple[int, Tensor, Tensor, Tensor]:
        """The first arguments of scoring and attention; layers and queries rotate."""
        return call % self.layers, self.queries[call % NUM_QUERIES], self.table, self.lengths

    def _selection(self, call: int) -> tuple[Tensor, Tensor]:
        first = call * self.case.batch
        return self.selected.rows(first, self.case.batch), self.counts.rows(first, self.case.batch)

    def choose(self, call: int) -> None:
        self.cache.choose(*self._inputs(call), self.scores, *self._selection(call), **self.scoring, sink=SINK_PAGES, recent=RECENT_PAGES)

    def attend(self, call: int) -> None:
        """Attends to the pages that `choose` selected for this call."""
        self.cache.attend(*self._inputs(call), self.out, *self._selection(call))

    def sparse(self, call: int) -> None:
        self.cache.attend_sparse(
            *self._inputs(call), self.scores, *self._selection(call), self.out, **self.scoring, sink=SINK_PAGES, recent=RECENT_PAGES
        )

    def score(self, call: int) -> None:
        self.cache.score(*self._inputs(call), self.scores, **self.scoring)

    def select(self, _: int) -> None:
        """Selects from the current scores."""
        self.cache.select(self.scores, self.lengths, *self.spare, SINK_PAGES, RECENT_PAGES)

    def separate(self, call: int) -> None:
        """The three calls that `sparse` combines, with every page scored."""
        self.score(call)
        self.select(call)
        self.cache.attend(*self._inputs(call), self.out, *self.spare)

    def dense(self, call: int) -> None:
        self.cache.attend(*self._inputs(call), self.out)

    def arms(self) -> dict[str, Arm]:
        """Arms by name. `sparse` runs first, because `attend` uses its selections."""
        score = self.rows * self.case.pages * self.row_bytes
        work = dict(
            sparse=self.attend_bytes,
            choose=0,
            separate=score + self.attend_bytes,
            score=score,
            select=0,
            attend=self.attend_bytes,
            dense=self.case.kv_bytes,
        )
        labels = dict(sparse="ours: sparse attention", separate="ours: score + select + attend")
        arms = {name: our_arm(self.device, labels.get(name, f"ours: {name}"), getattr(self, name), self.calls, work[name]) for name in work}
        arms["choose"].work = self.count_statistics(arms["choose"], 0)
        arms["sparse"].work += self.count_statistics(arms["sparse"], self.chosen)
        return arms

    def count_statistics(self, arm: Arm, attended: int) -> float:
        """Bytes of statistics that an arm reads, by the kernels' counters, which must agree with `attended`, in pages per row."""
        before = self.cache.counters()
        arm.launch()
        arm.wait()
        after = self.cache.counters()
        scored, copies, read, context = (
            getattr(after, name) - getattr(before, name) for name in ("pages_scored", "copies_scored", "pages_attended", "pages_in_context")
        )
        rows = self.calls * self.rows
        if (read, context) != (rows * attended, rows * self.case.pages if attended else 0):
            raise ps.PagesiftError(
                f"{arm.name} read {read / rows} of {context / rows} pages per row, expected {attended} of {self.case.pages}"
            )
        return (scored * self.row_bytes + copies * self.coarse_bytes) / self.calls

    def recall(self) -> float:
        """Share of the pages of exact bf16 scoring (f64 sums) that call 0 selected, over the first and the last sequence."""
        case = self.case
        group = case.query_heads // case.kv_heads
        shares = []
        for row in {0, case.batch - 1}:
            keys = self.contents.keys_of(0, row)
            ours, q = self.selected.row(row).read(), self.queries[0].row(row).read()
            for head in range(case.kv_heads):
                wanted = exact_pages(keys[:, head], q[head * group : (head + 1) * group], case.page_size, self.k, self.scorer)
                shares.append(np.isin(wanted, ours[head][: self.chosen]).mean())
        return float(np.mean(shares))

    def close(self) -> None:
        self.cache.close()
        self.device.free_tensors()


def our_arm(device: Device, name: str, operation: Callable[[int], None], calls: int, work: float) -> Arm:
    """An arm of a recorded graph, or of direct calls if the device cannot record."""

    def all_calls() -> None:
        for call in range(calls):
            operation(call)

    if not device.describe().records:
        return Arm(name, all_calls, device.wait, calls, work)
    graph = device.record(all_calls)
    return Arm(name, graph.launch, device.wait, calls, work, close=graph.close)


def exact_pages(keys: np.ndarray, queries: np.ndarray, page_size: int, k: int, scorer: str) -> np.ndarray:
    """The k pages of bf16 means and variances, f32 std, f64 sums. keys [n, d], queries [g, d]; n a multiple of the page size."""
    pages = keys.reshape(-1, page_size, keys.shape[1]).astype(np.float64)
    mean = pages.mean(1)
    variance = ((pages - mean[:, None]) ** 2).mean(1)
    q = queries.astype(np.float64)
    if scorer == "diag":
        spread = np.sqrt(q**2 @ to_bf16(variance).astype(np.float64).T)
    else:
        spread = np.linalg.norm(q, axis=1)[:, None] * np.sqrt(variance.sum(1))
    scores = (q @ to_bf16(mean).astype(np.float64).T + SCORERS[scorer][1] * spread).max(0)
    if len(scores) <= k:
        return np.arange(len(scores))
    scores[:SINK_PAGES] = scores[len(scores) - RECENT_PAGES :] = np.inf
    return np.argsort(-scores, kind="stable")[:k]
