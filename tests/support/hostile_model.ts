/** Copies of a fixture model with one thing broken, as a download or an attacker would leave it. */
import { join } from "@std/path";
import { ModelCopy } from "./fixture_model.ts";
import { rawSafetensors } from "./safetensors_bytes.ts";

// deno-lint-ignore no-explicit-any -- JSON of other people's making, changed at will
export type Json = any;

export const WEIGHTS = "model.safetensors";
export const INDEX = "model.safetensors.index.json";

/** What is done to a model folder. */
export type Change = (folder: string) => void | Promise<void>;

/** Parses a JSON file of the folder, changes it and writes it back. */
export function json(file: string, change: (value: Json) => unknown): Change {
  return (folder) => {
    const path = join(folder, file);
    const value = JSON.parse(Deno.readTextFileSync(path));
    change(value);
    Deno.writeTextFileSync(path, JSON.stringify(value));
  };
}

/** Writes a file of the folder anew. */
export function write(file: string, content: string | Uint8Array): Change {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return (folder) => Deno.writeFileSync(join(folder, file), bytes);
}

/** Parses the header of the weights, changes it, and writes the file back with the data that it had. */
export function header(change: (value: Json) => unknown): Change {
  return (folder) => {
    const { value, data } = readWeights(folder);
    change(value);
    writeWeights(folder, JSON.stringify(value), data);
  };
}

/** As {@link header}, for changes that JSON values cannot say. */
export function headerText(change: (text: string) => string): Change {
  return (folder) => {
    const { value, data } = readWeights(folder);
    writeWeights(folder, change(JSON.stringify(value)), data);
  };
}

/** Changes the bytes of the weights. */
export function bytes(change: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array): Change {
  return (folder) => {
    const path = join(folder, WEIGHTS);
    Deno.writeFileSync(path, change(Deno.readFileSync(path)));
  };
}

function readWeights(folder: string): { value: Json; data: Uint8Array } {
  const all = Deno.readFileSync(join(folder, WEIGHTS));
  const length = Number(new DataView(all.buffer).getBigUint64(0, true));
  const value = JSON.parse(new TextDecoder().decode(all.subarray(8, 8 + length)));
  return { value, data: all.subarray(8 + length) };
}

function writeWeights(folder: string, text: string, data: Uint8Array): void {
  const start = rawSafetensors(new TextEncoder().encode(text));
  const all = new Uint8Array(start.length + data.length);
  all.set(start);
  all.set(data, start.length);
  Deno.writeFileSync(join(folder, WEIGHTS), all);
}

/** A copy of a fixture after a change. */
export async function hostileModel(fixture: string, change: Change): Promise<ModelCopy> {
  const copy = ModelCopy.of(fixture);
  await change(copy.folder);
  return copy;
}
