/** Finds and opens the native library, on first use: importing this module has no effect. */
import { dirname, fromFileUrl, join } from "@std/path";
import { NativeError, Status } from "./errors.ts";
import { ABI_VERSION, STRUCT_BYTES, type Symbols, symbols } from "./symbols.ts";

/** The two builds of the native library. */
export type LibraryKind = "cpu" | "cuda";

/** Opened libraries by path. */
const opened = new Map<string, Symbols>();
/** The first path that was opened for a kind. */
const firstPaths = new Map<LibraryKind, string>();

function fileName(kind: LibraryKind): string {
  return `libpagesift_${kind}.${Deno.build.os === "darwin" ? "dylib" : "so"}`;
}

/** Where the library is expected, or undefined where nothing says so: a module from the network has no `build/` beside it. */
function findLibrary(kind: LibraryKind): string | undefined {
  const named = Deno.env.get("PAGESIFT_LIBRARY") || (kind === "cuda" && Deno.env.get("PAGESIFT_CUDA_LIBRARY")) ||
    undefined;
  if (named) return named;
  if (!import.meta.url.startsWith("file:")) return undefined;
  const root = dirname(dirname(fromFileUrl(import.meta.url)));
  return join(root, "build", kind, fileName(kind));
}

function libraryPath(kind: LibraryKind): string {
  const path = firstPaths.get(kind) ?? findLibrary(kind);
  if (path !== undefined) return path;
  throw new NativeError(
    Status.NoDevice,
    `The native library is not part of a module that is loaded from the network; build it from the sources, then pass the path of ` +
      `${fileName(kind)} as the option "library", or set PAGESIFT_LIBRARY`,
  );
}

function checkAbi(path: string, native: Symbols): void {
  const version = native.ps_abi_version();
  const wrong = Object.entries(STRUCT_BYTES).find(([, bytes], which) => native.ps_struct_bytes(which) !== bytes);
  if (version === ABI_VERSION && !wrong) return;
  throw new NativeError(
    Status.Unsupported,
    `Native library "${path}" has ABI version ${version}${
      wrong ? ` and a different ${wrong[0]}` : ""
    }, expected ${ABI_VERSION}; ` +
      `run "deno task build"`,
  );
}

function loadFailure(path: string, cause: unknown): string {
  try {
    Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "is missing";
  }
  return `could not be opened (${cause instanceof Error ? cause.message.split("\n")[0] : cause})`;
}

/** Whether there is a library to open for a kind: at `path`, or where {@link openLibrary} looks by default. */
export function isBuilt(kind: LibraryKind, path?: string): boolean {
  try {
    return Deno.statSync(path ?? libraryPath(kind)).isFile;
  } catch {
    return false;
  }
}

function load(path: string): Symbols {
  try {
    return Deno.dlopen(path, symbols).symbols;
  } catch (cause) {
    throw new NativeError(
      Status.NoDevice,
      `Native library "${path}" ${
        loadFailure(path, cause)
      }; run "deno task build", or set PAGESIFT_LIBRARY to its path`,
      { cause },
    );
  }
}

/**
 * The functions of a native library, opened once per process. Default for `path`: the first path that was opened for the kind, else
 * PAGESIFT_LIBRARY, else where `deno task build` writes the library.
 *
 * @throws {NativeError} when the library cannot be found or opened, or has another ABI
 */
export function openLibrary(kind: LibraryKind, path: string = libraryPath(kind)): Symbols {
  let native = opened.get(path);
  if (!native) {
    native = load(path);
    checkAbi(path, native);
    opened.set(path, native);
  }
  if (!firstPaths.has(kind)) firstPaths.set(kind, path);
  return native;
}

/** Devices, buffers and caches that are open in all opened libraries: zero once everything is closed. */
export function liveHandles(): number {
  let total = 0;
  for (const native of opened.values()) total += Number(native.ps_live_handles());
  return total;
}
