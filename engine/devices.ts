import { Device } from "../ffi/device.ts";
import { NativeError, Status } from "../ffi/errors.ts";
import { isBuilt } from "../ffi/library.ts";
import { PagesiftError } from "./errors.ts";

export type DeviceChoice = "auto" | "cpu" | "cuda";

/** The device that was opened, and what the user should know about the choice. */
export interface OpenedDevice {
  device: Device;
  notice: string | undefined;
}

function deviceError(error: unknown): unknown {
  if (!(error instanceof NativeError)) return error;
  return new PagesiftError("device", error.message, { cause: error });
}

/**
 * Opens the device asked for. `auto` takes CUDA when a device answers, else the CPU with a notice; nothing else falls back.
 *
 * @throws {PagesiftError} of kind "device"
 */
export function openDevice(choice: DeviceChoice, threads: number | undefined): OpenedDevice {
  const options = threads === undefined ? {} : { threads };
  try {
    if (choice !== "auto") return { device: Device.open(choice, options), notice: undefined };
    if (!isBuilt("cuda")) {
      return { device: Device.open("cpu", options), notice: "The CUDA library is not built; using the CPU" };
    }
    try {
      return { device: Device.open("cuda", options), notice: undefined };
    } catch (error) {
      if (!(error instanceof NativeError) || error.status === Status.InvalidArgument) throw error;
      return {
        device: Device.open("cpu", options),
        notice: `No CUDA device answered (${error.message}); using the CPU`,
      };
    }
  } catch (error) {
    throw deviceError(error);
  }
}

/** The device as stats name it: backend, then instruction set and threads, or the GPU's name. */
export function deviceLabel(device: Device): string {
  const { backend, name, numThreads } = device.describe();
  return backend === "cpu"
    ? `cpu (${name}, ${numThreads} ${numThreads === 1 ? "thread" : "threads"})`
    : `cuda (${name})`;
}
