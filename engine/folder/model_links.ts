import { basename, dirname, join } from "@std/path";
import { PagesiftError, reasonOf } from "../errors.ts";

/**
 * Refuses a file of a model folder that is a link to elsewhere, through which a model could have any file of the user's read. A link may
 * stay in its folder or, in the Hugging Face cache, point from a snapshot to a blob of the same model.
 */
export async function refuseLinkOut(file: string): Promise<void> {
  const [root, target] = [await realPath(dirname(file)), await realPath(file)];
  if (dirname(target) === root) return;
  const repository = dirname(dirname(root));
  const isSnapshot = basename(dirname(root)) === "snapshots" && basename(repository).startsWith("models--");
  if (isSnapshot && dirname(target) === join(repository, "blobs")) return;
  throw new PagesiftError("model", `File "${file}" is a link out of its folder; copy the file there instead`);
}

async function realPath(path: string): Promise<string> {
  try {
    return await Deno.realPath(path);
  } catch (cause) {
    throw new PagesiftError("model", `Cannot open "${path}": ${reasonOf(cause)}; download the model again`, { cause });
  }
}
