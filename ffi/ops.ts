/** The operations that need no KV cache, one native call each. Activations are f32; weights are f32, f16 or bf16, and in `embedding` and `matmul` also a block format. */
import { bytesOf, type Device } from "./device.ts";
import type { DType } from "./structs.ts";
import { ENUMS } from "./symbols.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Writes rows `[first, first + rows)` of a weight `[N, K]` or `[N]` from main memory. `source` contains them without gaps: in the weight's own
 * dtype they are stored bit for bit; f32, f16 and bf16 are rounded to it, or quantised to q8_0, q4_0, q4_1, q5_0 or q5_1.
 *
 * @throws {NativeError} when sizes do not fit, the source cannot become this dtype, or the device is recording
 */
export function weightWrite(
  device: Device,
  weight: Tensor,
  first: number,
  rows: number,
  sourceDtype: DType,
  source: ArrayBufferView<ArrayBuffer>,
): void {
  const bytes = bytesOf(source);
  device.check(
    device.native.ps_weight_write(
      device.pointer,
      weight.struct,
      BigInt(first),
      BigInt(rows),
      ENUMS.ps_dtype[sourceDtype],
      bytes,
      BigInt(bytes.length),
    ),
  );
}

/** out[t] = table[ids[t]]. ids i32 `[T]`, table `[V, H]`, out `[T, H]`. */
export function embedding(device: Device, ids: Tensor, table: Tensor, out: Tensor): void {
  device.check(device.native.ps_embedding(device.pointer, ids.struct, table.struct, out.struct));
}

/** Root-mean-square norm over the last dimension. x, out `[T, n]` or `[T, heads, n]`, weight `[n]`; out may be x. */
export function rmsNorm(device: Device, x: Tensor, weight: Tensor, eps: number, out: Tensor): void {
  device.check(device.native.ps_rms_norm(device.pointer, x.struct, weight.struct, eps, out.struct));
}

/** x += y, then out = the norm of x. x, y, out `[T, n]`, weight `[n]`. */
export function addRmsNorm(device: Device, x: Tensor, y: Tensor, weight: Tensor, eps: number, out: Tensor): void {
  device.check(device.native.ps_add_rms_norm(device.pointer, x.struct, y.struct, weight.struct, eps, out.struct));
}

/** Scale of the cosines and sines (`engine/folder/rope.ts`). */
export interface RopeScale {
  scale: number;
  /** Growth of the scale with the logarithm of the position; 0 for none. */
  positionBeta: number;
  /** Position, in tokens, where the growth starts. */
  positionOrigin: number;
}

/** Cosines, then sines, of every position. positions i32 `[T]`, invFreq `[r / 2]`, out `[T, r]`. */
export function ropeTable(device: Device, positions: Tensor, invFreq: Tensor, rope: RopeScale, out: Tensor): void {
  device.check(
    device.native.ps_rope_table(
      device.pointer,
      positions.struct,
      invFreq.struct,
      rope.scale,
      rope.positionBeta,
      rope.positionOrigin,
      out.struct,
    ),
  );
}

/** Rotates the first r numbers of every head in place. x `[T, heads, d]`, table `[T, r]`. */
export function rope(device: Device, x: Tensor, table: Tensor): void {
  device.check(device.native.ps_rope(device.pointer, x.struct, table.struct));
}

/** out = silu(gate) * up, all `[T, n]`. */
export function siluMul(device: Device, gate: Tensor, up: Tensor, out: Tensor): void {
  device.check(device.native.ps_silu_mul(device.pointer, gate.struct, up.struct, out.struct));
}

/** out = x * weight^T + bias. x `[T, K]`, weight `[N, K]`, bias `[N]` or none, out `[T, N]`. A block format rounds x to 8 bits. */
export function matmul(device: Device, x: Tensor, weight: Tensor, bias: Tensor | undefined, out: Tensor): void {
  device.check(
    device.native.ps_matmul(device.pointer, x.struct, weight.struct, bias ? bias.struct : null, out.struct),
  );
}

/** What surrounds a product in {@link fusedMatmul}. Scratch memory is f32; its contents are undefined afterwards. */
export interface ProductJoins {
  /** Norms x before. */
  norm?: ProductNorm | undefined;
  /** Adds the product to out, or multiplies its second half by an activation of the first, the gate. scratch `[T, N]` */
  ending?: { kind: "add" | "silu_mul" | "gelu_mul"; scratch: Tensor } | undefined;
  /** The norm of the {@link fusedMatmul} that takes out next, with the same eps; only where the product is added. It changes results by rounding only. */
  next?: ProductNorm | undefined;
}

/** weight `[K]`; scratch `[T, K]` */
export interface ProductNorm {
  weight: Tensor;
  eps: number;
  scratch: Tensor;
}

/**
 * {@link rmsNorm}, {@link matmul}, and {@link add}, {@link siluMul} or {@link geluMul} in one call: on CUDA, one launch for one token, and fewer for a batch.
 *
 * @param out `[T, N]`, or `[T, N / 2]` where the ending multiplies gates; none of the other tensors
 */
export function fusedMatmul(
  device: Device,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  out: Tensor,
  { norm, ending, next }: ProductJoins,
): void {
  device.check(
    device.native.ps_fused_matmul(
      device.pointer,
      x.struct,
      norm?.weight.struct ?? null,
      (norm ?? next)?.eps ?? 0,
      weight.struct,
      bias?.struct ?? null,
      ENUMS.ps_ending[ending?.kind ?? "store"],
      norm?.scratch.struct ?? null,
      ending?.scratch.struct ?? null,
      out.struct,
      next?.weight.struct ?? null,
      next?.scratch.struct ?? null,
    ),
  );
}

/** x += y, both `[T, n]`. */
export function add(device: Device, x: Tensor, y: Tensor): void {
  device.check(device.native.ps_add(device.pointer, x.struct, y.struct));
}

/** Lowest index of each row's largest number; -1 for a row with a NaN or without a finite maximum. x `[T, n]`, out i32 `[T]`. */
export function argmax(device: Device, x: Tensor, out: Tensor): void {
  device.check(device.native.ps_argmax(device.pointer, x.struct, out.struct));
}

/**
 * Draws a token for each row of logits, as `ps_sample` does; -1 where argmax returns -1. logits `[T, V]`, settings `[T, 4]`: temperature,
 * top-p, min-p, top-k; draws `[T]` in [0, 1), out i32 `[T]`.
 */
export function sample(device: Device, logits: Tensor, settings: Tensor, draws: Tensor, out: Tensor): void {
  device.check(device.native.ps_sample(device.pointer, logits.struct, settings.struct, draws.struct, out.struct));
}

/**
 * The k largest values of each row's softmax in descending order; `normalize` scales them to sum to 1.
 * logits `[T, E]`, experts i32 `[T, k]`, weights `[T, k]`.
 */
export function routeExperts(
  device: Device,
  logits: Tensor,
  normalize: boolean,
  experts: Tensor,
  weights: Tensor,
): void {
  device.check(
    device.native.ps_route_experts(device.pointer, logits.struct, normalize ? 1 : 0, experts.struct, weights.struct),
  );
}

/** out[rows[i]] += weights[i] * x[i]. x `[N, n]`, rows i32 `[N]` without duplicates, weights `[N]`, out `[T, n]`. */
export function scatterAdd(device: Device, x: Tensor, rows: Tensor, weights: Tensor, out: Tensor): void {
  device.check(device.native.ps_scatter_add(device.pointer, x.struct, rows.struct, weights.struct, out.struct));
}

/** out = gelu(gate) * up with the tanh form of gelu, all `[T, n]`. */
export function geluMul(device: Device, gate: Tensor, up: Tensor, out: Tensor): void {
  device.check(device.native.ps_gelu_mul(device.pointer, gate.struct, up.struct, out.struct));
}

/** x *= factor. x `[T, n]`. */
export function scale(device: Device, x: Tensor, factor: number): void {
  device.check(device.native.ps_scale(device.pointer, x.struct, factor));
}

/** On every member of a group, x becomes the sum over all members. x f32 `[T, n]` without gaps between rows. Nothing on a single device. */
export function allReduce(device: Device, x: Tensor): void {
  if (device.members > 1) device.check(device.native.ps_all_reduce(device.pointer, x.struct));
}

/**
 * The same in two calls: operations that neither read nor write x may follow this one, and run while the results travel between GPUs. x
 * holds the sum after {@link allReduceFinish}.
 */
export function allReduceStart(device: Device, x: Tensor): void {
  if (device.members > 1) device.check(device.native.ps_all_reduce_start(device.pointer, x.struct));
}

/** Ends {@link allReduceStart}. */
export function allReduceFinish(device: Device, x: Tensor): void {
  if (device.members > 1) device.check(device.native.ps_all_reduce_finish(device.pointer, x.struct));
}

/** Joins the columns of all members of a group. x `[T, n]` without gaps between rows, out `[T, members n]`, both f32. */
export function allGather(device: Device, x: Tensor, out: Tensor): void {
  device.check(device.native.ps_all_gather(device.pointer, x.struct, out.struct));
}
