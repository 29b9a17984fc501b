/** A reader of the fixtures' safetensors files: f32 tensors only, nothing checked. */

export type Tensors = Readonly<Record<string, Float32Array<ArrayBuffer>>>;

interface Entry {
  dtype: string;
  data_offsets: [number, number];
}

export function readFixtureTensors(path: string | URL): Tensors {
  const bytes = Deno.readFileSync(path);
  const headerBytes = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header: Record<string, Entry> = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerBytes)));
  const entries = Object.entries(header).map(([name, { dtype, data_offsets: [begin, end] }]) => {
    if (dtype !== "F32") throw new Error(`Tensor "${name}" holds ${dtype}, wanted F32`);
    return [name, new Float32Array(bytes.slice(8 + headerBytes + begin, 8 + headerBytes + end).buffer)];
  });
  return Object.fromEntries(entries);
}
