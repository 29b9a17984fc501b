"""The C contract (csrc/include/pagesift.h) for Python benchmarks: handles and views. Requires only NumPy."""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pagesift_abi import (
    ABI_VERSION,
    BF16,
    DIAG,
    F16,
    F32,
    FIELD_KEYS,
    FIELD_MEAN,
    FIELD_STD,
    FIELD_VALUES,
    I32,
    MEAN,
    Q4_K,
    Q8_0,
    SIGNATURES,
    STATISTICS_COARSE,
    STATISTICS_F8,
    STATISTICS_VARIANCE,
    STRUCTS,
    UNIQUE,
    CacheBytes,
    CacheDesc,
    Counters,
    DeviceInfo,
    DeviceOptions,
)
from pagesift_abi import Tensor as TensorStruct

if TYPE_CHECKING:
    from pagesift_ctypes import Buffer, Device, Tensor


__all__ = [
    "BF16",
    "DIAG",
    "F16",
    "F32",
    "FIELD_KEYS",
    "FIELD_MEAN",
    "FIELD_STD",
    "FIELD_VALUES",
    "I32",
    "MEAN",
    "Q4_K",
    "Q8_0",
    "STATISTICS_COARSE",
    "STATISTICS_F8",
    "STATISTICS_VARIANCE",
    "UNIQUE",
    "Cache",
    "Device",
    "PagesiftError",
    "Tensor",
]

NUMBER_BYTES = {F32: 4, F16: 2, BF16: 2, I32: 4}
BLOCK_BYTES = {Q8_0: (32, 34), Q4_K: (256, 144)}  # numbers and bytes of a block
MESSAGE_BYTES = 1024


class PagesiftError(Exception):
    """A call of the library failed; the text is the library's message."""


def load(path: str) -> c.CDLL:
    """Opens the library and compares version and struct sizes with the generated tables."""
    library = c.CDLL(path)
    for name, (result, *arguments) in SIGNATURES.items():
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = result
    if library.ps_abi_version() != ABI_VERSION:
        raise PagesiftError(f"{path} has ABI version {library.ps_abi_version()}, expected {ABI_VERSION}")
    for index, struct in enumerate(STRUCTS):
        if library.ps_struct_bytes(index) != c.sizeof(struct):
            raise PagesiftError(f"{struct.__name__} has {library.ps_struct_bytes(index)} bytes in {path}, here {c.sizeof(struct)}")
    return library


class Tensor:
    """A view of a buffer: shape outermost first, rows of dimension 0 contiguous."""

    def __init__(self, buffer: Buffer, offset_bytes: int, shape: Sequence[int], dtype: int) -> None:
        self.buffer, self.offset_bytes, self.shape, self.dtype = buffer, offset_bytes, tuple(shape), dtype
        sizes = list(shape) + [1] * (3 - len(shape))
        self.struct = TensorStruct(
            buffer.pointer, offset_bytes, int(np.prod(shape[1:], dtype=np.int64)), (c.c_int64 * 3)(*sizes), len(shape), dtype
        )

    @property
    def row_bytes(self) -> int:
        return self.struct.row_stride * NUMBER_BYTES[self.dtype]

    def rows(self, first: int, count: int) -> Tensor:
        """Rows [first, first + count) of dimension 0."""
        return Tensor(self.buffer, self.offset_bytes + first * self.row_bytes, (count, *self.shape[1:]), self.dtype)

    def row(self, index: int) -> Tensor:
        """Row `index`, with one dimension less."""
        return Tensor(self.buffer, self.offset_bytes + index * self.row_bytes, self.shape[1:], self.dtype)

    def write(self, array: np.ndarray) -> Tensor:
        """Copies an array of the same shape, f32 or i32, to the device."""
        array = np.ascontiguousarray(array, np.int32 if self.dtype == I32 else np.float32)
        assert array.shape == self.shape, f"shape {array.shape}, expected {self.shape}"
        self.buffer.write(array, self.offset_bytes)
        return self

    def read(self) -> np.ndarray:
        """The numbers, f32 or i32, as an array."""
        out = np.empty(self.shape, np.int32 if self.dtype == I32 else np.float32)
        device = self.buffer.device
        device.check(device.library.ps_buffer_read(self.buffer.pointer, self.offset_bytes, out.ctypes.data, out.nbytes))
        return out


class Buffer:
    """Memory of a device."""

    def __init__(self, device: Device, num_bytes: int) -> None:
        self.device, self.num_bytes = device, num_bytes
        self.pointer = device.made(lambda out: device.library.ps_buffer_create(device.pointer, num_bytes, out))

    def write(self, array: np.ndarray, offset_bytes: int = 0) -> None:
        self.device.check(self.device.library.ps_buffer_write(self.pointer, offset_bytes, array.ctypes.data, array.nbytes))

    def scan(self) -> int:
        """Reads the whole buffer once and waits. Returns the exclusive or of its words."""
        out = c.c_uint32()
        self.device.check(self.device.library.ps_buffer_scan(self.pointer, out))
        return out.value

    def close(self) -> None:
        self.device.check(self.device.library.ps_buffer_close(self.pointer))


class Graph:
    """Recorded operations."""

    def __init__(self, device: Device, pointer: int) -> None:
        self.device, self.pointer = device, pointer

    def launch(self) -> None:
        self.device.check(self.device.library.ps_graph_launch(self.pointer))

    def close(self) -> None:
        self.device.check(self.device.library.ps_graph_close(self.pointer))


class Device:
    """An open device. Buffers created with `tensor` are closed with it."""

    def __init__(self, library_path: str, index: int = 0, num_threads: int = 0) -> None:
        self.library = load(library_path)
        message, out = c.create_string_buffer(MESSAGE_BYTES), c.c_void_p()
        options = DeviceOptions(index, num_threads)
        if self.library.ps_device_open(options, out, message, len(message)) != 0:
            raise PagesiftError(message.value.decode())
        self.pointer = out.value
        self.buffers = []

    def check(self, status: int) -> None:
        if status != 0:
            message = c.create_string_buffer(MESSAGE_BYTES)
            self.library.ps_error_message(message, len(message))
            raise PagesiftError(f"status {status}: {message.value.decode()}")

    def made(self, make: Callable[..., int]) -> int:
        """The handle that `make` writes through its out pointer."""
        out = c.c_void_p()
        self.check(make(out))
        return out.value

    def describe(self) -> Any:
        info = DeviceInfo()
        self.check(self.library.ps_device_describe(self.pointer, info))
        return info

    def wait(self) -> None:
        self.check(self.library.ps_device_wait(self.pointer, None, 0))

    def tensor(self, shape: Sequence[int], dtype: int = F32) -> Tensor:
        """A tensor of zeros in its own buffer."""
        numbers, num_bytes = BLOCK_BYTES.get(dtype) or (1, NUMBER_BYTES[dtype])
        buffer = Buffer(self, int(np.prod(shape, dtype=np.int64)) // numbers * num_bytes)
        self.buffers.append(buffer)
        return Tensor(buffer, 0, shape, dtype)

    def upload(self, array: np.ndarray) -> Tensor:
        """A tensor with the numbers of an array of floats or integers."""
        return self.tensor(array.shape, I32 if np.issubdtype(array.dtype, np.integer) else F32).write(array)

    def record(self, body: Callable[[int], object]) -> Graph:
        """The operations that `body` calls, as a graph; refused on the CPU."""
        self.check(self.library.ps_graph_begin(self.pointer))
        try:
            body()
        finally:
            pointer = c.c_void_p()
            status = self.library.ps_graph_end(self.pointer, pointer)
        self.check(status)
        return Graph(self, pointer.value)

    def free_tensors(self) -> None:
        for buffer in self.buffers:
            buffer.close()
        self.buffers = []

    def close(self) -> None:
        self.free_tensors()
        self.check(self.library.ps_device_close(self.pointer))


class Cache:
    """A paged KV cache. Arguments are tensors; shapes as in the header."""

    def __init__(self, device: Device, **desc: Any) -> None:
        self.device, self.library = device, device.library
        self.desc = CacheDesc(**desc)
        self.pointer = device.made(lambda out: self.library.ps_cache_create(device.pointer, self.desc, out))

    @staticmethod
    def measure(device: Device, **desc: Any) -> Any:
        """Bytes of keys and values, statistics and scratch."""
        out = CacheBytes()
        device.check(device.library.ps_cache_measure(device.pointer, CacheDesc(**desc), out))
        return out

    def append(self, layer: int, k: Tensor, v: Tensor, slots: Tensor) -> None:
        self.device.check(self.library.ps_append_kv(self.pointer, layer, k.struct, v.struct, slots.struct))

    def score(self, layer: int, q: Tensor, table: Tensor, lengths: Tensor, scores: Tensor, scorer: int = UNIQUE, lam: float = 0.5) -> None:
        self.device.check(
            self.library.ps_page_score(self.pointer, layer, scorer, lam, q.struct, table.struct, lengths.struct, scores.struct)
        )

    def select(self, scores: Tensor, lengths: Tensor, selected: Tensor, counts: Tensor, sink: int = 1, recent: int = 2) -> None:
        self.device.check(
            self.library.ps_page_select(self.pointer, sink, recent, scores.struct, lengths.struct, selected.struct, counts.struct)
        )

    def attend_sparse(
        self,
        layer: int,
        q: Tensor,
        table: Tensor,
        lengths: Tensor,
        scores: Tensor,
        selected: Tensor,
        counts: Tensor,
        out: Tensor,
        scorer: int = UNIQUE,
        lam: float = 0.5,
        sink: int = 1,
        recent: int = 2,
    ) -> None:
        """`choose`, then attention over its selection, in one call."""
        self.device.check(
            self.library.ps_sparse_attention(
                self.pointer,
                layer,
                scorer,
                lam,
                sink,
                recent,
                q.shape[-1] ** -0.5,
                q.struct,
                table.struct,
                lengths.struct,
                scores.struct,
                selected.struct,
                counts.struct,
                out.struct,
            )
        )

    def choose(
        self,
        layer: int,
        q: Tensor,
        table: Tensor,
        lengths: Tensor,
        scores: Tensor,
        selected: Tensor,
        counts: Tensor,
        scorer: int = UNIQUE,
        lam: float = 0.5,
        sink: int = 1,
        recent: int = 2,
    ) -> None:
        """Score and selection in one call; through groups of pages or coarse copies if the cache has them."""
        self.device.check(
            self.library.ps_page_choose(
                self.pointer,
                layer,
                scorer,
                lam,
                sink,
                recent,
                q.struct,
                table.struct,
                lengths.struct,
                scores.struct,
                selected.struct,
                counts.struct,
            )
        )

    def attend(
        self,
        layer: int,
        q: Tensor,
        table: Tensor,
        lengths: Tensor,
        out: Tensor,
        selected: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> None:
        """Attention over the selected pages, or over all without a selection."""
        chosen = [None if tensor is None else tensor.struct for tensor in (selected, counts)]
        self.device.check(
            self.library.ps_decode_attention(
                self.pointer, layer, self.desc.head_dim**-0.5, 0, q.struct, table.struct, lengths.struct, *chosen, out.struct
            )
        )

    def prefill(self, layer: int, start: int, q: Tensor, table_row: Tensor, out: Tensor) -> None:
        self.device.check(
            self.library.ps_prefill_attention(
                self.pointer, layer, self.desc.head_dim**-0.5, 0, start, q.struct, table_row.struct, out.struct
            )
        )

    def read(self, layer: int, page: int, field: int) -> np.ndarray:
        """Mean [Hk, d], std [Hk], keys or values [Hk, S, d] of one physical page."""
        desc = self.desc
        shape = {FIELD_STD: (desc.num_kv_heads,), FIELD_MEAN: (desc.num_kv_heads, desc.head_dim)}.get(
            field, (desc.num_kv_heads, desc.page_size, desc.head_dim)
        )
        out = np.empty(shape, np.float32)
        pointer = out.ctypes.data_as(c.POINTER(c.c_float))
        self.device.check(self.library.ps_cache_read(self.pointer, layer, page, field, pointer, out.size))
        return out

    def counters(self) -> Any:
        out = Counters()
        self.device.check(self.library.ps_cache_counters(self.pointer, out))
        return out

    def close(self) -> None:
        self.device.check(self.library.ps_cache_close(self.pointer))
