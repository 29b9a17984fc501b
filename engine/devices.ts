import { Device, type DeviceOptions } from "../ffi/device.ts";
import { NativeError, Status } from "../ffi/errors.ts";
import { isBuilt } from "../ffi/library.ts";
import { hasNvidiaGpu } from "../ffi/nvidia.ts";
import { PagesiftError } from "./errors.ts";
import type { Notice } from "./types.ts";

/** Which device to open; `auto` prefers CUDA. */
export type DeviceChoice = "auto" | "cpu" | "cuda";

/** An open device, and what the user should know about the choice. */
export interface OpenedDevice {
  device: Device;
  notices: readonly Notice[];
}

function deviceError(error: unknown): unknown {
  if (!(error instanceof NativeError)) return error;
  return new PagesiftError("device", error.message, { cause: error });
}

/** Says that the CPU replaces CUDA: a warning on a machine with a GPU, which should have worked. */
export function fallbackNotice(reason: string, hasGpu: boolean): Notice {
  return hasGpu
    ? { level: "warning", text: `${reason}; this machine has an NVIDIA GPU, but the CPU is used` }
    : { level: "info", text: `${reason}; using the CPU` };
}

const CHOICES: readonly DeviceChoice[] = ["auto", "cpu", "cuda"];
const MAX_THREADS = 1024;

/** @throws {PagesiftError} of kind "usage" */
export function checkDeviceOptions(
  choice: DeviceChoice = "auto",
  threads?: number,
  devices: readonly number[] = [],
): void {
  if (devices.some((index) => !Number.isInteger(index) || index < 0) || new Set(devices).size < devices.length) {
    const list = devices.join(",");
    throw new PagesiftError("usage", `Devices "${list}" cannot be used; expected different whole numbers such as 0,1`);
  }
  if (!CHOICES.includes(choice)) {
    throw new PagesiftError("usage", `Device "${choice}" is unknown; expected ${CHOICES.join(", ")}`);
  }
  if (threads === undefined || Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS) return;
  throw new PagesiftError(
    "usage",
    `Invalid number of threads ${threads}: expected a whole number from 1 to ${MAX_THREADS}`,
  );
}

/**
 * Opens a device, or several as a group. `auto` opens CUDA if a GPU answers, else the CPU with a notice; nothing else falls back, nor
 * does `auto` for devices by their number.
 *
 * @throws {PagesiftError} of kind "device" or "usage"
 */
export function openDevice(
  choice: DeviceChoice,
  threads?: number,
  library?: string,
  devices: readonly number[] = [],
): OpenedDevice {
  checkDeviceOptions(choice, threads, devices);
  const options = { ...threads !== undefined && { threads }, ...library !== undefined && { library } };
  try {
    if (devices.length > 0) {
      return { device: Device.open(choice === "cpu" ? "cpu" : "cuda", { ...options, indices: devices }), notices: [] };
    }
    if (choice !== "auto") return { device: Device.open(choice, options), notices: [] };
    if (!isBuilt("cuda", library)) return openCpu("The CUDA library is not built", options);
    try {
      return { device: Device.open("cuda", options), notices: [] };
    } catch (error) {
      if (!(error instanceof NativeError) || error.status === Status.InvalidArgument) throw error;
      return openCpu(`No CUDA device answered (${error.message})`, options);
    }
  } catch (error) {
    throw deviceError(error);
  }
}

function openCpu(reason: string, options: DeviceOptions): OpenedDevice {
  return { device: Device.open("cpu", options), notices: [fallbackNotice(reason, hasNvidiaGpu())] };
}

/** The device as stats show it: backend with instruction set and threads, or with the GPU's name. */
export function deviceLabel(device: Device): string {
  const { backend, name, numThreads } = device.describe();
  const group = device.members > 1 ? `, ${device.members} devices` : "";
  return backend === "cpu"
    ? `cpu (${name}, ${numThreads} ${numThreads === 1 ? "thread" : "threads"}${group})`
    : `cuda (${name}${group})`;
}
