/** A fingerprint of a model that does not read gigabytes. */
import { type ModelFile, modelFiles } from "../engine/prompts/model_fingerprint.ts";

const END_BYTES = 1 << 20;

/**
 * SHA-256 over every weight file's name, size, first and last MiB, in the order of their names; of a folder, over `config.json` first. A
 * GGUF file stands for itself, and the first part of a split one for all of them.
 */
export async function modelSha256(path: string): Promise<string> {
  const parts = modelFiles(path).flatMap((file) =>
    file.name === "config.json" ? [Deno.readFileSync(file.path)] : endsOf(file)
  );
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function endsOf({ name, path }: ModelFile): Uint8Array<ArrayBuffer>[] {
  using file = Deno.openSync(path);
  const { size } = file.statSync();
  const read = (from: number): Uint8Array<ArrayBuffer> => {
    const bytes = new Uint8Array(Math.min(END_BYTES, size));
    file.seekSync(from, Deno.SeekMode.Start);
    let done = 0;
    while (done < bytes.length) done += file.readSync(bytes.subarray(done)) ?? bytes.length;
    return bytes;
  };
  return [new TextEncoder().encode(`${name} ${size}\n`), read(0), read(Math.max(0, size - END_BYTES))];
}
