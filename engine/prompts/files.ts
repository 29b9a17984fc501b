import { basename, dirname, join } from "@std/path";
import { isJsonObject, type JsonObject } from "../folder/json_file.ts";

/** How temporary files end. A crash may leave one behind; `evict` removes old ones. */
export const TEMPORARY = ".tmp";

/** Writes a file beside its destination and renames it, so that nobody ever sees a part of it. Only its owner can read it. */
export async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const fresh = join(dirname(path), `${basename(path)}.${crypto.randomUUID().slice(0, 8)}${TEMPORARY}`);
  try {
    await Deno.writeFile(fresh, bytes, { createNew: true, mode: 0o600 });
    await Deno.rename(fresh, path);
  } catch (error) {
    await removeIfThere(fresh);
    throw error;
  }
}

/** Whether the file was there. */
export async function removeIfThere(path: string): Promise<boolean> {
  try {
    await Deno.remove(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** The contents of a file, or undefined if there is none. */
export async function readIfThere(path: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The object in a JSON file, or undefined if the file is missing, unreadable or contains anything else. */
export async function readJsonIfThere(path: string): Promise<JsonObject | undefined> {
  try {
    const bytes = await readIfThere(path);
    const value: unknown = bytes && JSON.parse(new TextDecoder().decode(bytes));
    return isJsonObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
