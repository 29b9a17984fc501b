/** A tensor of a test file: dtype, shape and, where not right behind the one before it, its offsets. */
export interface TestTensor {
  dtype?: unknown;
  shape?: unknown;
  data_offsets?: unknown;
}

/** Bytes of a safetensors file: header length, header (text or an object), then `dataBytes` bytes counting up from 0. */
export function safetensorsBytes(header: unknown, dataBytes = 0): Uint8Array {
  const text = typeof header === "string" ? header : JSON.stringify(header);
  return rawSafetensors(new TextEncoder().encode(text), dataBytes);
}

/** The same with a header of any bytes, and a length that may lie. */
export function rawSafetensors(header: Uint8Array, dataBytes = 0, headerLength = BigInt(header.length)): Uint8Array {
  const bytes = new Uint8Array(8 + header.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, headerLength, true);
  bytes.set(header, 8);
  for (let i = 0; i < dataBytes; i++) bytes[8 + header.length + i] = i;
  return bytes;
}

/** A file of U8 tensors of four bytes each, one behind the other. */
export function fileOf(...names: string[]): Uint8Array {
  const entries = names.map((name, i) => [name, { dtype: "U8", shape: [4], data_offsets: [4 * i, 4 * i + 4] }]);
  return safetensorsBytes(Object.fromEntries(entries), 4 * names.length);
}
