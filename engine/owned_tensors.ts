import type { Device } from "../ffi/device.ts";
import { DTYPE_BYTES } from "../ffi/structs.ts";
import type { Tensor } from "../ffi/tensor.ts";

/** A tensor that is to be allocated. */
export type TensorNeed = Pick<Tensor, "dtype" | "shape">;

/** Bytes of the numbers of a tensor. */
export function tensorBytes({ dtype, shape }: TensorNeed): number {
  return shape.reduce((product, size) => product * size, 1) * DTYPE_BYTES[dtype];
}

/** Bytes of all tensors; those that are undefined are not needed. */
export function needBytes(needs: Readonly<Record<string, TensorNeed | undefined>>): number {
  return Object.values(needs).reduce((sum, need) => sum + (need ? tensorBytes(need) : 0), 0);
}

/** `device.createTensor`, for tensors whose buffers close with the stack: also when a later step of a constructor throws. */
export function tensorsOwnedBy(stack: DisposableStack, device: Device): Device["createTensor"] {
  return (dtype, shape) => {
    const tensor = device.createTensor(dtype, shape);
    stack.use(tensor.buffer);
    return tensor;
  };
}
