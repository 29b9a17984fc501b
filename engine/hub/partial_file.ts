import { createHash, type Hash } from "node:crypto";

const PIECE_BYTES = 1 << 20;

/** A download in progress: a file that grows, and the hash of its content. */
export class PartialFile implements Disposable {
  #bytes = 0;
  #hash: Hash = createHash("sha256");
  readonly #file: Deno.FsFile;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** Opens what an earlier run left, or a new file. */
  static async open(path: string): Promise<PartialFile> {
    const partial = new PartialFile(await Deno.open(path, { read: true, write: true, create: true }));
    try {
      await partial.#readExisting();
      return partial;
    } catch (error) {
      partial[Symbol.dispose]();
      throw error;
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** SHA-256 of all bytes, in hex; afterwards nothing can be added. */
  digest(): string {
    return this.#hash.digest("hex");
  }

  async append(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length;) done += await this.#file.write(chunk.subarray(done));
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }

  /** Drops everything. */
  async restart(): Promise<void> {
    await this.#file.truncate(0);
    await this.#file.seek(0, Deno.SeekMode.Start);
    this.#hash = createHash("sha256");
    this.#bytes = 0;
  }

  /** Returns once the content is on the disk, so that a rename never publishes an empty file. */
  async flush(): Promise<void> {
    await this.#file.sync();
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }

  async #readExisting(): Promise<void> {
    const buffer = new Uint8Array(PIECE_BYTES);
    for (let count = await this.#file.read(buffer); count !== null; count = await this.#file.read(buffer)) {
      this.#hash.update(buffer.subarray(0, count));
      this.#bytes += count;
    }
  }
}
