import { cacheSymbols } from "./symbols_cache.ts";

/**
 * The functions of `csrc/include/pagesift.h`, in its order; `scripts/gate/check_abi.ts` compares the two. Handles and structs are passed
 * as pointers or buffers, statuses come back as i32.
 */
export const symbols = {
  ps_abi_version: { parameters: [], result: "i32" },
  ps_struct_bytes: { parameters: ["i32" /* which */], result: "i32" },
  ps_live_handles: { parameters: [], result: "i64" },

  ps_device_open: {
    parameters: [
      "buffer", // const ps_device_options *options
      "buffer", // ps_device **out
      "buffer", // char *message
      "i32", // int32_t message_bytes
    ],
    result: "i32",
  },
  ps_device_close: { parameters: ["pointer" /* ps_device *device */], result: "i32" },
  ps_device_message: {
    parameters: [
      "pointer", // const ps_device *device
      "buffer", // char *out
      "i32", // int32_t bytes
    ],
    result: "i32",
  },
  ps_device_describe: {
    parameters: ["pointer", /* ps_device *device */ "buffer" /* ps_device_info *out */],
    result: "i32",
  },
  ps_device_wait: { parameters: ["pointer" /* ps_device *device */], result: "i32", nonblocking: true },

  ps_buffer_create: {
    parameters: [
      "pointer", // ps_device *device
      "i64", // int64_t bytes
      "buffer", // ps_buffer **out
    ],
    result: "i32",
  },
  ps_buffer_close: { parameters: ["pointer" /* ps_buffer *buffer */], result: "i32" },
  ps_buffer_write: {
    parameters: [
      "pointer", // ps_buffer *buffer
      "i64", // int64_t offset_bytes
      "buffer", // const void *source
      "i64", // int64_t bytes
    ],
    result: "i32",
  },
  ps_buffer_read: {
    parameters: [
      "pointer", // ps_buffer *buffer
      "i64", // int64_t offset_bytes
      "buffer", // void *target
      "i64", // int64_t bytes
    ],
    result: "i32",
  },
  ps_buffer_scan: {
    parameters: ["pointer", /* ps_buffer *buffer */ "buffer" /* uint32_t *out */],
    result: "i32",
  },

  ps_graph_begin: { parameters: ["pointer" /* ps_device *device */], result: "i32" },
  ps_graph_end: {
    parameters: ["pointer", /* ps_device *device */ "buffer" /* ps_graph **out */],
    result: "i32",
  },
  ps_graph_launch: { parameters: ["pointer" /* ps_graph *graph */], result: "i32" },
  ps_graph_close: { parameters: ["pointer" /* ps_graph *graph */], result: "i32" },

  ps_embedding: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *ids
      "buffer", // const ps_tensor *table
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_rms_norm: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *x
      "buffer", // const ps_tensor *weight
      "f32", // float eps
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_add_rms_norm: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *x
      "buffer", // const ps_tensor *y
      "buffer", // const ps_tensor *weight
      "f32", // float eps
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_rope_table: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *positions
      "buffer", // const ps_tensor *inv_freq
      "f32", // float scale
      "f32", // float position_beta
      "i32", // int32_t position_origin
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_rope: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *x
      "buffer", // const ps_tensor *table
    ],
    result: "i32",
  },
  ps_silu_mul: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *gate
      "buffer", // const ps_tensor *up
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_matmul: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *x
      "buffer", // const ps_tensor *weight
      "buffer", // const ps_tensor *bias
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_add: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *x
      "buffer", // const ps_tensor *y
    ],
    result: "i32",
  },
  ps_argmax: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *x
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_sample: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *logits
      "buffer", // const ps_tensor *settings
      "buffer", // const ps_tensor *draws
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },
  ps_route_experts: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *logits
      "i32", // int32_t normalize
      "buffer", // const ps_tensor *experts
      "buffer", // const ps_tensor *weights
    ],
    result: "i32",
  },
  ps_scatter_add: {
    parameters: [
      "pointer", // ps_device *device
      "buffer", // const ps_tensor *x
      "buffer", // const ps_tensor *rows
      "buffer", // const ps_tensor *weights
      "buffer", // const ps_tensor *out
    ],
    result: "i32",
  },

  ...cacheSymbols,
} as const satisfies Deno.ForeignLibraryInterface;

export type Symbols = Deno.DynamicLibrary<typeof symbols>["symbols"];
