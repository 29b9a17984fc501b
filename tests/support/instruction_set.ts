/** Prints the instruction set that `PAGESIFT_ISA` leads to; run as a process of its own, because all threads share the environment. */
import { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";

function instructionSet(): string {
  try {
    using device = Device.open("cpu", { threads: 1 });
    return device.describe().name;
  } catch (error) {
    if (error instanceof NativeError && error.status === Status.Unsupported) return "none";
    throw error;
  }
}

if (import.meta.main) Deno.stdout.writeSync(new TextEncoder().encode(instructionSet()));
