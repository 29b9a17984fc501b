/** Whether a GPU answers. */
import { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { isBuilt, openLibrary } from "../../ffi/library.ts";
import { log } from "../output.ts";

/** Runs a script that requires a GPU and exits with its code; a broken library is reported in one line. */
export async function runMain(title: string, main: () => Promise<number>): Promise<never> {
  try {
    Deno.exit(await main());
  } catch (error) {
    if (!(error instanceof NativeError)) throw error;
    log(`${title}: ${error.message}`);
    Deno.exit(1);
  }
}

/**
 * Why no CUDA device can be used, in one line; undefined if one answers.
 *
 * @throws {NativeError} if the library was built and is broken, which is no reason to skip anything
 */
export function whyNoGpu(): string | undefined {
  if (isBuilt("cuda")) openLibrary("cuda");
  try {
    Device.open("cuda").close();
    return undefined;
  } catch (error) {
    if (error instanceof NativeError && error.status === Status.NoDevice) return error.message;
    throw error;
  }
}
