import type { Device } from "../ffi/device.ts";

/** `device.createTensor`, for tensors whose buffers close with the stack: also when a later step of a constructor throws. */
export function tensorsOwnedBy(stack: DisposableStack, device: Device): Device["createTensor"] {
  return (dtype, shape) => {
    const tensor = device.createTensor(dtype, shape);
    stack.use(tensor.buffer);
    return tensor;
  };
}
