"""Generated from csrc/include/pagesift.h; after a change there, run "deno run -A scripts/gate/abi.ts --write"."""

import ctypes as c

ABI_VERSION = 14
OK = 0
INVALID_ARGUMENT = 1
OUT_OF_MEMORY = 2
NO_DEVICE = 3
UNSUPPORTED = 4
DEVICE_ERROR = 5
INTERNAL = 6
BACKEND_CPU = 0
BACKEND_CUDA = 1
F32 = 0
F16 = 1
BF16 = 2
I32 = 3
Q8_0 = 4
Q4_0 = 5
Q4_1 = 6
Q5_0 = 7
Q5_1 = 8
Q4_K = 9
Q5_K = 10
Q6_K = 11
F8 = 12
KV_DTYPE = 0
KV_Q8 = 1
KV_FP8 = 2
UNIQUE = 0
DIAG = 1
QUEST = 2
MEAN = 3
STORE = 0
ADD = 1
SILU_MUL = 2
GELU_MUL = 3
STATISTICS_VARIANCE = 1
STATISTICS_MIN_MAX = 2
STATISTICS_F8 = 4
STATISTICS_COARSE = 8
FIELD_KEYS = 0
FIELD_VALUES = 1
FIELD_MEAN = 2
FIELD_STD = 3
FIELD_VAR = 4
FIELD_MIN = 5
FIELD_MAX = 6


class Tensor(c.Structure):
    """The struct ps_tensor."""

    _fields_ = (
        ("buffer", c.c_void_p),
        ("offset_bytes", c.c_int64),
        ("row_stride", c.c_int64),
        ("shape", c.c_int64 * 3),
        ("rank", c.c_int32),
        ("dtype", c.c_int32),
    )


class DeviceOptions(c.Structure):
    """The struct ps_device_options."""

    _fields_ = (("index", c.c_int32), ("num_threads", c.c_int32))


class DeviceInfo(c.Structure):
    """The struct ps_device_info."""

    _fields_ = (
        ("total_bytes", c.c_int64),
        ("available_bytes", c.c_int64),
        ("allocated_bytes", c.c_int64),
        ("backend", c.c_int32),
        ("num_threads", c.c_int32),
        ("records", c.c_int32),
        ("capability", c.c_int32),
        ("name", c.c_char * 64),
    )


class CacheDesc(c.Structure):
    """The struct ps_cache_desc."""

    _fields_ = (
        ("num_pages", c.c_int64),
        ("max_pages_per_sequence", c.c_int64),
        ("num_layers", c.c_int32),
        ("num_query_heads", c.c_int32),
        ("num_kv_heads", c.c_int32),
        ("head_dim", c.c_int32),
        ("page_size", c.c_int32),
        ("dtype", c.c_int32),
        ("statistics", c.c_int32),
        ("max_sequences", c.c_int32),
        ("group_pages", c.c_int32),
        ("kv_type", c.c_int32),
    )


class CacheBytes(c.Structure):
    """The struct ps_cache_bytes."""

    _fields_ = (
        ("kv", c.c_int64),
        ("statistics", c.c_int64),
        ("scratch", c.c_int64),
        ("unit", c.c_int64),
    )


class Counters(c.Structure):
    """The struct ps_counters."""

    _fields_ = (
        ("rows_selected", c.c_int64),
        ("pages_scored", c.c_int64),
        ("pages_attended", c.c_int64),
        ("pages_in_context", c.c_int64),
        ("selections", c.c_int64),
        ("prompt_pages_scored", c.c_int64),
        ("prompt_pages_attended", c.c_int64),
        ("prompt_pages_visible", c.c_int64),
        ("copies_scored", c.c_int64),
    )


# In the order of ps_struct_bytes.
STRUCTS = (Tensor, DeviceOptions, DeviceInfo, CacheDesc, CacheBytes, Counters)

# The result of every function, then its parameters.
SIGNATURES = {
    "ps_abi_version": [c.c_int32],
    "ps_struct_bytes": [c.c_int32, c.c_int32],
    "ps_live_handles": [c.c_int64],
    "ps_error_message": [c.c_int32, c.c_char_p, c.c_int32],
    "ps_device_open": [
        c.c_int32,
        c.POINTER(DeviceOptions),
        c.POINTER(c.c_void_p),
        c.c_char_p,
        c.c_int32,
    ],
    "ps_device_close": [c.c_int32, c.c_void_p],
    "ps_device_describe": [c.c_int32, c.c_void_p, c.POINTER(DeviceInfo)],
    "ps_device_wait": [c.c_int32, c.c_void_p, c.c_char_p, c.c_int32],
    "ps_buffer_create": [
        c.c_int32,
        c.c_void_p,
        c.c_int64,
        c.POINTER(c.c_void_p),
    ],
    "ps_buffer_close": [c.c_int32, c.c_void_p],
    "ps_buffer_write": [
        c.c_int32,
        c.c_void_p,
        c.c_int64,
        c.c_void_p,
        c.c_int64,
    ],
    "ps_buffer_read": [c.c_int32, c.c_void_p, c.c_int64, c.c_void_p, c.c_int64],
    "ps_read_start": [c.c_int32, c.c_void_p, c.c_int64, c.c_int64],
    "ps_read_finish": [c.c_int32, c.c_void_p, c.c_void_p, c.c_int64],
    "ps_buffer_scan": [c.c_int32, c.c_void_p, c.POINTER(c.c_uint32)],
    "ps_graph_begin": [c.c_int32, c.c_void_p],
    "ps_graph_end": [c.c_int32, c.c_void_p, c.POINTER(c.c_void_p)],
    "ps_graph_launch": [c.c_int32, c.c_void_p],
    "ps_graph_close": [c.c_int32, c.c_void_p],
    "ps_weight_write": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.c_int64,
        c.c_int64,
        c.c_int32,
        c.c_void_p,
        c.c_int64,
    ],
    "ps_embedding": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_rms_norm": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.c_float,
        c.POINTER(Tensor),
    ],
    "ps_add_rms_norm": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.c_float,
        c.POINTER(Tensor),
    ],
    "ps_rope_table": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.c_float,
        c.c_float,
        c.c_int32,
        c.POINTER(Tensor),
    ],
    "ps_rope": [c.c_int32, c.c_void_p, c.POINTER(Tensor), c.POINTER(Tensor)],
    "ps_silu_mul": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_matmul": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_fused_matmul": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.c_float,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_add": [c.c_int32, c.c_void_p, c.POINTER(Tensor), c.POINTER(Tensor)],
    "ps_argmax": [c.c_int32, c.c_void_p, c.POINTER(Tensor), c.POINTER(Tensor)],
    "ps_sample": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_route_experts": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_scatter_add": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_gelu_mul": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_scale": [c.c_int32, c.c_void_p, c.POINTER(Tensor), c.c_float],
    "ps_cache_measure": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(CacheDesc),
        c.POINTER(CacheBytes),
    ],
    "ps_cache_create": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(CacheDesc),
        c.POINTER(c.c_void_p),
    ],
    "ps_cache_close": [c.c_int32, c.c_void_p],
    "ps_append_kv": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_append_rotated": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_float,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_page_statistics": [c.c_int32, c.c_void_p, c.c_int32, c.c_int32],
    "ps_page_score": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_int32,
        c.c_float,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_page_select": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_page_choose": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_decode_attention": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_append_attend": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_float,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.c_float,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_page_mass": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_sparse_attention": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.c_int32,
        c.c_float,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_append_sparse_attention": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_float,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.c_int32,
        c.c_float,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_prefill_attention": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_prefill_choose": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_sparse_prefill_attention": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_float,
        c.c_int32,
        c.c_int32,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
    "ps_cache_read": [
        c.c_int32,
        c.c_void_p,
        c.c_int32,
        c.c_int32,
        c.c_int32,
        c.POINTER(c.c_float),
        c.c_int64,
    ],
    "ps_cache_export": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(c.c_int32),
        c.c_int64,
        c.c_void_p,
        c.c_int64,
    ],
    "ps_cache_import": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(c.c_int32),
        c.c_int64,
        c.c_void_p,
        c.c_int64,
    ],
    "ps_cache_counters": [c.c_int32, c.c_void_p, c.POINTER(Counters)],
    "ps_cache_reset_counters": [c.c_int32, c.c_void_p],
    "ps_group_open": [
        c.c_int32,
        c.POINTER(DeviceOptions),
        c.c_int32,
        c.POINTER(c.c_void_p),
        c.c_char_p,
        c.c_int32,
    ],
    "ps_group_only": [c.c_int32, c.c_void_p, c.c_int32],
    "ps_all_reduce": [c.c_int32, c.c_void_p, c.POINTER(Tensor)],
    "ps_all_reduce_start": [c.c_int32, c.c_void_p, c.POINTER(Tensor)],
    "ps_all_reduce_finish": [c.c_int32, c.c_void_p, c.POINTER(Tensor)],
    "ps_all_gather": [
        c.c_int32,
        c.c_void_p,
        c.POINTER(Tensor),
        c.POINTER(Tensor),
    ],
}
