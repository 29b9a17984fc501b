import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { basename, dirname, join } from "@std/path";
import { ADAPTER_CONFIG } from "../folder/adapter.ts";
import { readFully } from "../folder/safetensors.ts";
import { readJsonIfThere, replaceFile } from "./files.ts";

const PIECE_BYTES = 1 << 20;

/** A file that a model consists of. */
export interface ModelFile {
  name: string;
  path: string;
}

/** The weight files of a model or an adapter, by name, after the config of a folder. A GGUF file stands for itself, a split one for all parts. */
export function modelFiles(model: string): ModelFile[] {
  const isFolder = Deno.statSync(model).isDirectory;
  const folder = isFolder ? model : dirname(model);
  const all = Array.from(Deno.readDirSync(folder), ({ name }) => name);
  const weights = isFolder ? all.filter((name) => name.endsWith(".safetensors")) : partsOf(basename(model), all);
  const configs = isFolder ? all.filter((name) => name === "config.json" || name === ADAPTER_CONFIG) : [];
  const names = [...configs.toSorted(), ...weights.toSorted()];
  return names.map((name) => ({ name, path: join(folder, name) }));
}

/** The file, or all parts of a split one. */
function partsOf(first: string, names: readonly string[]): string[] {
  const stem = (name: string): string => name.replace(/-\d{5}(-of-\d{5}\.gguf)$/, "$1");
  return names.filter((name) => stem(name) === stem(first));
}

/** What tells whether a file has changed since its contents were read. */
interface Seen {
  name: string;
  size: number;
  mtime: number;
  ino: number;
}

/**
 * SHA-256 of a model's config and of a checksum of every MiB of its weights. It is remembered in `folder` until a file of the model changes
 * in size, time or inode, since reading all of a large model takes as long as loading it.
 */
export async function modelFingerprint(model: string, folder: string): Promise<string> {
  const files = modelFiles(model);
  const seen = files.map(({ name, path }): Seen => {
    const { size, mtime, ino } = Deno.statSync(path);
    return { name, size, mtime: mtime?.getTime() ?? 0, ino: ino ?? 0 };
  });
  const place = join(
    folder,
    `${createHash("sha256").update(Deno.realPathSync(model)).digest("hex").slice(0, 40)}.model`,
  );
  const known = await readJsonIfThere(place);
  if (typeof known?.["fingerprint"] === "string" && JSON.stringify(known["seen"]) === JSON.stringify(seen)) {
    return known["fingerprint"];
  }
  const hash = createHash("sha256");
  for (const { name, path } of files) hash.update(`${name}\n`).update(checksums(path));
  const fingerprint = hash.digest("hex");
  // Where it cannot be remembered, the next run reads the weights again, and saving a prompt reports why.
  await replaceFile(place, new TextEncoder().encode(JSON.stringify({ fingerprint, seen }))).catch(() => {});
  return fingerprint;
}

/** The CRC-32 of every MiB of a file. */
function checksums(path: string): Uint8Array {
  using file = Deno.openSync(path);
  const piece = new Uint8Array(PIECE_BYTES);
  const sums: number[] = [];
  for (let count = readFully(file, piece, path); count > 0; count = readFully(file, piece, path)) {
    sums.push(count, crc32(piece.subarray(0, count)));
  }
  return new Uint8Array(Uint32Array.from(sums).buffer);
}
