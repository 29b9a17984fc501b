/** Devices for tests: opened, used, closed, and nothing left behind. */
import { assertEquals } from "@std/assert";
import { basename, dirname, fromFileUrl, join } from "@std/path";
import { Device, type DeviceOptions } from "../../ffi/device.ts";
import { anyExists } from "../../ffi/nvidia.ts";
import { type LibraryKind, liveHandles, openLibrary } from "../../ffi/library.ts";
import { ROOT } from "../../scripts/release/native_library.ts";
import { libraryPath } from "../../scripts/release/toolchain.ts";

const COPIES = join(ROOT, "build", "test");

/** Which build the tests of operations and models run against: `PAGESIFT_TEST_DEVICE`, else the CPU's. */
export const DEVICE_KIND: LibraryKind = Deno.env.get("PAGESIFT_TEST_DEVICE") === "cuda" ? "cuda" : "cpu";
/** Whether two devices can form a group; on the CPU, all members share it. */
export const HAS_TWO_DEVICES = DEVICE_KIND === "cpu" || anyExists(["/dev/nvidia1"]);
/** Two, so that work is shared out, whatever the machine. */
const DEFAULT_THREADS = 2;

let isolated: string | undefined;

/** The library that tests copy: the one asked for, else the one `deno task build` makes. */
function builtLibrary(): string {
  return Deno.env.get("PAGESIFT_LIBRARY") || libraryPath(DEVICE_KIND);
}

/** Where this test file's copy lies; brought up to date by a rename, so that nobody sees half a file. */
function refreshCopy(library: string): string {
  const main = fromFileUrl(Deno.mainModule);
  const copy = join(COPIES, `${basename(dirname(main))}_${basename(main, ".ts")}_${basename(library)}`);
  const built = Deno.statSync(library);
  try {
    const { mtime, size } = Deno.statSync(copy);
    if (size === built.size && (mtime?.getTime() ?? 0) >= (built.mtime?.getTime() ?? 0)) return copy;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const temporary = `${copy}.${Deno.pid}.tmp`;
  Deno.copyFileSync(library, temporary);
  Deno.renameSync(temporary, copy);
  return copy;
}

/**
 * Opens a copy of the native library that belongs to this test file alone. `deno test --parallel` runs the files as threads of one
 * process, in which one library counts the handles of all of them; with a copy each, zero live handles is a fact about one file.
 * Returns the path of the copy.
 */
export function isolateLibrary(): string {
  if (isolated !== undefined) return isolated;
  Deno.mkdirSync(COPIES, { recursive: true });
  isolated = refreshCopy(builtLibrary());
  openLibrary(DEVICE_KIND, isolated);
  return isolated;
}

/** Opens a device of this file's own copy of the library; the caller closes it. */
export function openDevice(options: DeviceOptions = {}): Device {
  isolateLibrary();
  return Device.open(DEVICE_KIND, { threads: DEFAULT_THREADS, ...options });
}

let name: string | undefined;

/** The name of the device that tests run against; on the CPU, the instruction set. */
export function deviceName(): string {
  if (name !== undefined) return name;
  using device = openDevice();
  return name = device.describe().name;
}

/**
 * Waits until the device has done all that it was given. The CUDA build looks at slots, page tables and ids only there, and reports one
 * that lies outside at the next call that waits; the CPU build has reported it before.
 */
export function settle(device: Device): void {
  const probe = device.createBuffer(4);
  try {
    probe.read(new Uint8Array(4));
  } finally {
    probe.close();
  }
}

/** Opens a device, runs the body, closes the device, and asserts that no native handle is left. */
export function withDevice(body: (device: Device) => void, options: DeviceOptions = {}): void {
  {
    using device = openDevice(options);
    body(device);
  }
  assertEquals(liveHandles(), 0, "native handles are still open");
}

/** Registers a test that runs with a device of its own. */
export function deviceTest(name: string, body: (device: Device) => void, options: DeviceOptions = {}): void {
  Deno.test(name, () => withDevice(body, options));
}
