/** The tiny models of tests/fixtures/hf: loaded, run, and copied with one thing changed. */
import { assert } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { Engine, type EngineOptions } from "../../engine/engine.ts";
import type { LoadedModel } from "../../engine/loaded_model.ts";
import { readSafetensorsHeader } from "../../engine/folder/safetensors.ts";
import type { BatchPiece, FinishReason, Piece } from "../../engine/types.ts";
import { DEVICE_KIND, isolateLibrary } from "./device.ts";

const FOLDER = fromFileUrl(new URL("../fixtures/hf", import.meta.url));

export function fixtureFolder(name: string): string {
  return join(FOLDER, name);
}

/** Loads a model folder on the device that tests run against, with two threads. */
export function loadFolder(folder: string, options: EngineOptions = {}): Promise<Engine> {
  isolateLibrary();
  return Engine.load(folder, { device: DEVICE_KIND, threads: 2, ...options });
}

export function loadFixture(name: string, options: EngineOptions = {}): Promise<Engine> {
  return loadFolder(fixtureFolder(name), options);
}

/** What an engine runs, for tests that look inside. */
export function loadedOf(engine: Engine): LoadedModel {
  using session = engine.openSession(engine.policy(), { totalTokens: 8, longestTokens: 8, maxSequences: 1 });
  return session.loaded;
}

/** The 220 ids of the fixture's prompt, repeated where more are asked for. */
export function promptIds(name: string, count = 220): number[] {
  const { input_ids: ids } = JSON.parse(Deno.readTextFileSync(join(FOLDER, name, "reference.json")));
  return Array.from({ length: count }, (_, index) => ids[index % ids.length]);
}

/** All that a generation gave. */
export interface Outcome {
  ids: number[];
  text: string;
  finish: FinishReason | undefined;
  error?: string;
}

export async function collect(pieces: AsyncIterable<Piece>): Promise<Outcome> {
  const outcome: Outcome = { ids: [], text: "", finish: undefined };
  for await (const piece of pieces) add(outcome, piece);
  return outcome;
}

/** What each of `count` requests of a batch gave. @throws {Error} if a request goes on after its end */
export async function collectBatch(pieces: AsyncIterable<BatchPiece>, count: number): Promise<Outcome[]> {
  const outcomes = Array.from({ length: count }, (): Outcome => ({ ids: [], text: "", finish: undefined }));
  for await (const piece of pieces) {
    const outcome = outcomes[piece.index];
    assert(outcome && !outcome.finish, `piece of request ${piece.index} after its end`);
    add(outcome, piece);
  }
  return outcomes;
}

function add(outcome: Outcome, { id, text, finish, error }: Piece): void {
  outcome.ids.push(id);
  outcome.text += text;
  outcome.finish = finish;
  if (error !== undefined) outcome.error = error;
}

/** A model folder that lives as long as its test. */
export class ModelCopy implements Disposable {
  private constructor(readonly folder: string) {}

  static of(name: string): ModelCopy {
    const folder = Deno.makeTempDirSync();
    for (const file of Deno.readDirSync(fixtureFolder(name))) {
      Deno.copyFileSync(join(fixtureFolder(name), file.name), join(folder, file.name));
    }
    return new ModelCopy(folder);
  }

  /** Changes fields of `config.json`. */
  configure(fields: Readonly<Record<string, unknown>>): this {
    const file = join(this.folder, "config.json");
    Deno.writeTextFileSync(file, JSON.stringify({ ...JSON.parse(Deno.readTextFileSync(file)), ...fields }));
    return this;
  }

  /** Puts a number at one place of an f32 tensor. */
  async poke(tensor: string, index: number, value: number): Promise<this> {
    const { tensors } = await readSafetensorsHeader(join(this.folder, "model.safetensors"));
    const entry = tensors.get(tensor);
    if (entry?.dtype !== "F32") throw new Error(`No F32 tensor "${tensor}" in the copied model`);
    using file = Deno.openSync(entry.file, { write: true });
    file.seekSync(entry.offsetBytes + 4 * index, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(Float32Array.of(value).buffer));
    return this;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.folder, { recursive: true });
  }
}
