import { assertEquals, assertNotMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { type ErrorKind, PagesiftError } from "../../engine/errors.ts";
import { findModelFolder, type FindModelOptions } from "../../engine/hub/find.ts";
import { FakeHub, sha256 } from "./fake_hub.ts";
import { withFiles } from "./folders.ts";

/** The weights of the fake Hub's model. */
export const WEIGHTS = Uint8Array.from({ length: 100_000 }, (_, i) => i * 7);
const FILES = {
  "config.json": "{}",
  "tokenizer.json": "{ }",
  "tokenizer_config.json": '{"a": 1}',
  "model.safetensors": WEIGHTS,
  "README.md": "not wanted",
};

/** Where a test of `findModelFolder` runs. */
export interface Place {
  hub: FakeHub;
  cache: string;
  model: string;
  find(options?: Partial<FindModelOptions>, name?: string): Promise<string>;
}

/** Calls `use` with a fake Hub that holds `files`, and an empty cache; both are gone after. */
export async function withHub(
  use: (place: Place) => Promise<void>,
  files: Record<string, string | Uint8Array> = FILES,
): Promise<void> {
  await withFiles({}, async (cache) => {
    await using hub = new FakeHub(files);
    const env = { HF_HUB_CACHE: cache, HF_ENDPOINT: hub.endpoint, HF_TOKEN: "secret" };
    const find = (options: Partial<FindModelOptions> = {}, name = "org/name") =>
      findModelFolder(name, { ...options, env: { ...env, ...options.env } });
    await use({ hub, cache, model: join(cache, "models--org--name"), find });
  });
}

/** Asserts a one-line error of a kind that holds all of `parts` and never the token. */
export async function assertRefused(found: () => Promise<unknown>, kind: ErrorKind, ...parts: string[]): Promise<void> {
  const error = await assertRejects(found, PagesiftError);
  assertEquals(error.kind, kind, error.message);
  for (const part of parts) assertStringIncludes(error.message, part);
  assertNotMatch(error.message, /\n|\.$|secret/);
}

/** Path of the weights in the cache of a model. */
export async function weightsBlob(model: string): Promise<string> {
  return join(model, "blobs", await sha256(WEIGHTS));
}
