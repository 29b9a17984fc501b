/** Matrices that model folders store quantised, against the numbers that they stand for. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { PagesiftError } from "../../../engine/errors.ts";
import type { CheckpointTensor } from "../../../engine/folder/checkpoint.ts";
import { ConfigFields } from "../../../engine/folder/config_fields.ts";
import { parseQuantization, withQuantization } from "../../../engine/folder/quantization.ts";
import { readSafetensorsHeader } from "../../../engine/folder/safetensors.ts";
import { readRowsInPieces } from "../../../engine/folder/tensor_rows.ts";
import { withFiles } from "../../support/folders.ts";

const ROWS = 40, COLUMNS = 256, GROUP = 64;

interface Stored {
  dtype: string;
  shape: number[];
  data: ArrayBufferView<ArrayBuffer>;
}

/** A safetensors file of these tensors. */
function fileOf(tensors: Record<string, Stored>): Uint8Array {
  let end = 0;
  const header = JSON.stringify(Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, data }]) => {
      const begin = end;
      end += data.byteLength;
      return [name, { dtype, shape, data_offsets: [begin, end] }];
    }),
  ));
  const start = new Uint8Array(8);
  new DataView(start.buffer).setBigUint64(0, BigInt(header.length), true);
  const data = Object.values(tensors).flatMap(({ data }) => [...new Uint8Array(data.buffer)]);
  return Uint8Array.from([...start, ...new TextEncoder().encode(header), ...data]);
}

/** Calls `use` with the tensors of a file as a quantised folder gives them. */
async function withTensors(
  stored: Record<string, Stored>,
  config: Record<string, unknown>,
  use: (tensors: ReadonlyMap<string, CheckpointTensor>) => void,
): Promise<void> {
  const fields = new ConfigFields({ quantization_config: config }, "config.json");
  await withFiles({ "m.safetensors": fileOf(stored) }, async (folder) => {
    const { tensors } = await readSafetensorsHeader(join(folder, "m.safetensors"));
    use(withQuantization(tensors, parseQuantization(fields)));
  });
}

/** The rows of a tensor, read in pieces of a few. */
function readRows(tensor: CheckpointTensor, rowBytes: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(rowBytes * (tensor.shape[0] ?? 0));
  readRowsInPieces(tensor, (bytes, first) => out.set(bytes, first * rowBytes), new Uint8Array(2048));
  return out;
}

const quantum = (row: number, column: number): number => (row * 7 + column * 3 + (row * column) % 5) % 16;
const zero = (group: number, row: number): number => 1 + (group * 5 + row) % 15;
const scale = (group: number, row: number): number => 2 ** -((group + row) % 6);

/** Values of 4 bits, `[first, second]`, put into integers along one dimension; `place` says where each of eight neighbours goes. */
function pack(
  [first, second]: [number, number],
  along: 0 | 1,
  place: readonly number[],
  valueAt: (first: number, second: number) => number,
): Stored {
  const shape = along === 0 ? [first / 8, second] : [first, second / 8];
  const data = new Uint32Array((shape[0] ?? 0) * (shape[1] ?? 0));
  for (let a = 0; a < first; a++) {
    for (let b = 0; b < second; b++) {
      const at = along === 0 ? Math.floor(a / 8) * second + b : a * second / 8 + Math.floor(b / 8);
      data[at] = (data[at] ?? 0) | valueAt(a, b) << 4 * (place[(along === 0 ? a : b) % 8] ?? 0);
    }
  }
  return { dtype: "I32", shape, data };
}

const IN_ORDER = [0, 1, 2, 3, 4, 5, 6, 7];
/** AWQ puts columns 0, 2, 4, 6, 1, 3, 5, 7 one behind the other. */
const AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7].map((_, column, order) => order.indexOf(column));
const GROUPS = COLUMNS / GROUP;
const SCALES: Stored = {
  dtype: "F16",
  shape: [GROUPS, ROWS],
  data: Float16Array.from({ length: GROUPS * ROWS }, (_, at) => scale(Math.floor(at / ROWS), at % ROWS)),
};

const AWQ = {
  "a.qweight": pack([COLUMNS, ROWS], 1, AWQ_ORDER, (column, row) => quantum(row, column)),
  "a.qzeros": pack([GROUPS, ROWS], 1, AWQ_ORDER, zero),
  "a.scales": SCALES,
};
const GPTQ = {
  "a.qweight": pack([COLUMNS, ROWS], 0, IN_ORDER, (column, row) => quantum(row, column)),
  "a.qzeros": pack([GROUPS, ROWS], 1, IN_ORDER, (group, row) => zero(group, row) - 1),
  "a.scales": SCALES,
};
const order = (groupOf: (column: number) => number): Stored => ({
  dtype: "I32",
  shape: [COLUMNS],
  data: Int32Array.from({ length: COLUMNS }, (_, column) => groupOf(column)),
});

/** The numbers of Q4_1 rows. */
function numbersOf(bytes: Uint8Array<ArrayBuffer>): number[] {
  const view = new DataView(bytes.buffer);
  return Array.from({ length: ROWS * COLUMNS }, (_, at) => {
    const block = Math.floor(at / 32) * 20, place = at % 32;
    const both = view.getUint8(block + 4 + place % 16);
    return (place < 16 ? both & 15 : both >> 4) * view.getFloat16(block, true) + view.getFloat16(block + 2, true);
  });
}

const EXPECTED = Array.from({ length: ROWS * COLUMNS }, (_, at) => {
  const [row, column] = [Math.floor(at / COLUMNS), at % COLUMNS];
  const group = Math.floor(column / GROUP);
  return (quantum(row, column) - zero(group, row)) * scale(group, row);
});

for (
  const [name, stored, config] of [
    ["AWQ", AWQ, { quant_method: "awq", bits: 4, group_size: GROUP, version: "gemm" }],
    ["GPTQ", GPTQ, { quant_method: "gptq", bits: 4, group_size: GROUP, desc_act: false }],
    ["GPTQ with a plain order", { ...GPTQ, "a.g_idx": order((column) => Math.floor(column / GROUP)) }, {
      ...{ quant_method: "gptq", bits: 4, group_size: GROUP },
    }],
  ] as const
) {
  Deno.test(`a matrix of ${name} is read as Q4_1 with the same numbers`, async () => {
    await withTensors(stored, config, (tensors) => {
      assertEquals([...tensors.keys()], ["a.weight"]);
      const tensor = tensors.get("a.weight")!;
      assertEquals([tensor.dtype, tensor.shape], ["Q4_1", [ROWS, COLUMNS]]);
      assertEquals(numbersOf(readRows(tensor, COLUMNS / 32 * 20)), EXPECTED);
    });
  });
}

Deno.test("a matrix of GPTQ whose columns are out of order is refused", async () => {
  const stored = { ...GPTQ, "a.g_idx": order((column) => column % GROUPS) };
  await withTensors(stored, { quant_method: "gptq", bits: 4, group_size: GROUP }, (tensors) => {
    const { kind, message } = assertThrows(() => readRows(tensors.get("a.weight")!, COLUMNS / 32 * 20), PagesiftError);
    assertEquals([kind, message.includes("a.g_idx")], ["model", true]);
  });
});

const F8_ROWS = 130;
const F8: Stored = {
  dtype: "F8_E4M3",
  shape: [F8_ROWS, COLUMNS],
  data: Uint8Array.from({ length: F8_ROWS * COLUMNS }, (_, at) => at % 126),
};

/** Scales of the two blocks of each row, which lie behind their numbers. */
function scalesOf(bytes: Uint8Array<ArrayBuffer>): number[][] {
  const view = new DataView(bytes.buffer);
  return Array.from({ length: F8_ROWS }, (_, row) => [128, 260].map((at) => view.getFloat32(row * 264 + at, true)));
}

for (
  const [name, scaleName, shape, scaleAt] of [
    ["blocks of 128 by 128", "a.weight_scale_inv", [2, 2], (row, block) => 2 * Math.floor(row / 128) + block],
    ["rows", "a.weight_scale", [F8_ROWS, 1], (row) => row],
    ["the whole matrix", "a.weight_scale", [1], () => 0],
  ] as [string, string, number[], (row: number, block: number) => number][]
) {
  Deno.test(`8-bit floats with scales of ${name} are read with their scales behind each block`, async () => {
    const count = shape.reduce((product, size) => product * size, 1);
    const scales: Stored = { dtype: "F32", shape, data: Float32Array.from({ length: count }, (_, at) => 1 + at / 8) };
    await withTensors({ "a.weight": F8, [scaleName]: scales }, { quant_method: "fp8" }, (tensors) => {
      const tensor = tensors.get("a.weight")!;
      assertEquals([tensors.size, tensor.dtype], [1, "F8"]);
      const rows = readRows(tensor, 264);
      const expected = scalesOf(rows).map((row, index) => row.map((_, block) => 1 + scaleAt(index, block) / 8));
      assertEquals(scalesOf(rows), expected);
      assertEquals(rows.slice(264 + 132, 264 + 260), new Uint8Array(F8.data.buffer).slice(384, 512));
    });
  });
}

for (
  const [name, config, ...parts] of [
    ["an unknown method", { quant_method: "bitsandbytes" }, '"bitsandbytes"', "GGUF"],
    ["8 bits of GPTQ", { quant_method: "gptq", bits: 8, group_size: 64 }, '"bits"'],
    [
      "the layout of AWQ's other kernel",
      { quant_method: "awq", bits: 4, group_size: 64, version: "gemv" },
      '"version"',
    ],
    [
      "another layout of GPTQ",
      { quant_method: "gptq", bits: 4, group_size: 64, checkpoint_format: "marlin" },
      "marlin",
    ],
    ["other blocks of 8-bit floats", { quant_method: "fp8", weight_block_size: [64, 64] }, '"weight_block_size"'],
    ["other compressed tensors", { quant_method: "compressed-tensors", format: "pack-quantized" }, '"format"'],
  ] as [string, Record<string, unknown>, ...string[]][]
) {
  Deno.test(`a quantization_config with ${name} is refused`, () => {
    const fields = new ConfigFields({ quantization_config: config }, "config.json");
    const { kind, message } = assertThrows(() => parseQuantization(fields), PagesiftError);
    assertEquals(kind, "model");
    for (const part of parts) assertStringIncludes(message, part);
  });
}

for (
  const [name, stored, config, ...parts] of [
    ["without scales", { "a.weight": F8 }, { quant_method: "fp8" }, "a.weight", "no scales"],
    ["with scales of another shape", { "a.weight": F8, "a.weight_scale": { ...SCALES, shape: [ROWS, GROUPS] } }, {
      quant_method: "fp8",
    }, "a.weight_scale"],
    ["without zero points", { "a.qweight": AWQ["a.qweight"], "a.scales": SCALES }, {
      ...{ quant_method: "awq", bits: 4, group_size: GROUP },
    }, "a.qzeros"],
    ["with groups of another size", AWQ, { quant_method: "awq", bits: 4, group_size: 128 }, "a.scales"],
  ] as [string, Record<string, Stored>, Record<string, unknown>, ...string[]][]
) {
  Deno.test(`a quantised matrix ${name} is refused by name`, async () => {
    const fields = new ConfigFields({ quantization_config: config }, "config.json");
    await withFiles({ "m.safetensors": fileOf(stored) }, async (folder) => {
      const { tensors } = await readSafetensorsHeader(join(folder, "m.safetensors"));
      const { message } = assertThrows(() => withQuantization(tensors, parseQuantization(fields)), PagesiftError);
      for (const part of parts) assertStringIncludes(message, part);
    });
  });
}
