/** Finds and opens the native library, on first use: importing this module has no effect. */
import { dirname, fromFileUrl, join } from "@std/path";
import { NativeError, Status } from "./errors.ts";
import { ABI_VERSION, STRUCT_BYTES, type Symbols, symbols } from "./symbols.ts";

export type LibraryKind = "cpu" | "cuda";

const opened = new Map<LibraryKind, Symbols>();

function libraryPath(kind: LibraryKind): string {
  const override = Deno.env.get("PAGESIFT_LIBRARY");
  if (override) return override;
  const extension = Deno.build.os === "darwin" ? "dylib" : "so";
  const root = dirname(dirname(fromFileUrl(import.meta.url)));
  return join(root, "build", kind, `libpagesift_${kind}.${extension}`);
}

function checkAbi(path: string, native: Symbols): void {
  const version = native.ps_abi_version();
  const wrong = Object.entries(STRUCT_BYTES).find(([, bytes], which) => native.ps_struct_bytes(which) !== bytes);
  if (version === ABI_VERSION && !wrong) return;
  throw new NativeError(
    Status.Unsupported,
    `Native library "${path}" has ABI version ${version}${
      wrong ? `, with another ${wrong[0]}` : ""
    }, wanted ${ABI_VERSION}; ` +
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

/** Whether the library was built. */
export function isBuilt(kind: LibraryKind): boolean {
  try {
    return Deno.statSync(libraryPath(kind)).isFile;
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
      `Native library "${path}" ${loadFailure(path, cause)}; run "deno task build", or set PAGESIFT_LIBRARY`,
      { cause },
    );
  }
}

/**
 * The functions of a native library, opened once per process. The first call for a kind may give its path; default:
 * PAGESIFT_LIBRARY, or where `deno task build` puts it.
 *
 * @throws {NativeError} when it is missing, or of another ABI.
 */
export function openLibrary(kind: LibraryKind, path = libraryPath(kind)): Symbols {
  let native = opened.get(kind);
  if (!native) {
    native = load(path);
    checkAbi(path, native);
    opened.set(kind, native);
  }
  return native;
}

/** Devices, buffers and caches that are open in all opened libraries: zero once everything is closed. */
export function liveHandles(): number {
  let total = 0;
  for (const native of opened.values()) total += Number(native.ps_live_handles());
  return total;
}
