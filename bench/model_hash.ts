/** A fingerprint of a model folder that does not read gigabytes. */
import { join } from "@std/path";

const END_BYTES = 1 << 20;

/**
 * SHA-256 over `config.json` and the name, size, first and last MiB of every weight file, in the order of their
 * names.
 */
export async function modelSha256(folder: string): Promise<string> {
  const names = Array.from(Deno.readDirSync(folder), ({ name }) => name).filter((name) =>
    name.endsWith(".safetensors")
  );
  const parts = [
    Deno.readFileSync(join(folder, "config.json")),
    ...names.toSorted().flatMap((name) => endsOf(folder, name)),
  ];
  const all = new Uint8Array(await new Blob(parts).arrayBuffer());
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function endsOf(folder: string, name: string): Uint8Array<ArrayBuffer>[] {
  using file = Deno.openSync(join(folder, name));
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
