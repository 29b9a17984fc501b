/** Checks imports between rings, which files print and exit, and the length of files (docs/architecture.md). */
import { dirname, fromFileUrl, join, normalize, relative } from "@std/path";
import { log } from "../output.ts";

const ROOT = fromFileUrl(new URL("../..", import.meta.url));
const MAX_LINES = 500;
/** Which rings each ring may import. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  cli: ["cli", "bench", "inspect", "engine", "mod.ts", "deno.json"],
  inspect: ["inspect", "engine", "ffi", "deno.json"],
  bench: ["bench", "engine", "ffi", "deno.json"],
  engine: ["engine", "ffi"],
  ffi: ["ffi"],
};
/** Folders of the engine whose modules must not reach ffi/, through any chain of imports. */
const PURE_FOLDERS = ["hub", "text", "folder", "gguf", "source", "pages", "prompts", "sample"].map((name) =>
  `engine/${name}/`
);
/** Modules in those folders that hold device memory. */
const DEVICE_MODULES = new Set(["engine/pages/kv_pool.ts", "engine/sample/native_sampler.ts"]);
const PRINTERS = new Set(["cli/output.ts", "cli/system_world.ts", "ffi/handle.ts"]);
const EXITERS = new Set(["cli/main.ts", "cli/system_world.ts"]);

export function listFiles(folder: string, pattern: RegExp): string[] {
  return [...Deno.readDirSync(join(ROOT, folder))].flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory) return entry.name === "fixtures" ? [] : listFiles(path, pattern);
    return pattern.test(entry.name) ? [path] : [];
  });
}

/**
 * Files of this repository that a source text imports; type imports vanish at run time and do not count as
 * reaching ffi/.
 */
export function importsOf(path: string, text: string, types: boolean): string[] {
  const statements = text.matchAll(
    /^(?:import|export)\s+(type\s)?[^;]*?from\s+"(\.[^"]+)"|import(?:\(|\s+)"(\.[^"]+)"/gm,
  );
  return [...statements].filter(([, isType]) => types || !isType)
    .map(([, , from, bare]) => relative(ROOT, normalize(join(ROOT, dirname(path), from ?? bare ?? ""))));
}

function ringOf(path: string): string {
  return path.split("/")[0] ?? "";
}

/** Imports that the ring of a module does not allow. */
export function checkArrows(path: string, text: string): string[] {
  const allowed = ALLOWED[ringOf(path)] ?? [];
  return importsOf(path, text, true).filter((target) => !allowed.includes(ringOf(target)))
    .map((target) => `${path} imports ${target}; ${ringOf(path)}/ may import ${allowed.join(", ")}`);
}

/** Printing and exiting outside of the modules that may; examples in documentation comments do not count. */
export function checkEffects(path: string, text: string): string[] {
  const problems: string[] = [];
  const code = text.replaceAll(/\/\*\*.*?\*\//gs, "");
  if (/Deno\.(stdout|stderr)\b|console\./.test(code) && !PRINTERS.has(path)) {
    problems.push(`${path} writes to the terminal`);
  }
  if (/Deno\.exit\(/.test(code) && !EXITERS.has(path)) problems.push(`${path} ends the process`);
  return problems;
}

/** The import chain from a pure module to ffi/, or undefined. */
export function wayToDevice(
  path: string,
  texts: ReadonlyMap<string, string>,
  seen = new Set<string>(),
): string | undefined {
  seen.add(path);
  for (const target of importsOf(path, texts.get(path) ?? "", false)) {
    if (ringOf(target) === "ffi") return `${path} -> ${target}`;
    const rest = seen.has(target) ? undefined : wayToDevice(target, texts, seen);
    if (rest) return `${path} -> ${rest}`;
  }
  return undefined;
}

function checkSizes(): string[] {
  const folders = ["cli", "bench", "inspect", "engine", "ffi", "csrc", "scripts", "tests"];
  return folders.flatMap((folder) => listFiles(folder, /\.(ts|cpp|h|cu|cuh|py)$/)).flatMap((path) => {
    const text = Deno.readTextFileSync(join(ROOT, path)), lines = text.split("\n").length - 1;
    if (/^(\/\/ |""")Generated from/.test(text)) return []; // as long as what it lists
    return lines > MAX_LINES ? [`${path} has ${lines} lines, more than ${MAX_LINES}`] : [];
  });
}

function checkAll(): string[] {
  const paths = Object.keys(ALLOWED).flatMap((ring) => listFiles(ring, /\.ts$/));
  const texts = new Map(paths.map((path) => [path, Deno.readTextFileSync(join(ROOT, path))]));
  const pure = paths.filter((path) =>
    PURE_FOLDERS.some((folder) => path.startsWith(folder)) && !DEVICE_MODULES.has(path)
  );
  const ways = pure.flatMap((path) => wayToDevice(path, texts) ?? []);
  return [
    ...[...texts].flatMap(([path, text]) => [...checkArrows(path, text), ...checkEffects(path, text)]),
    ...ways.map((way) => `A pure module reaches the device: ${way}`),
    ...checkSizes(),
  ];
}

if (import.meta.main) {
  const problems = checkAll();
  const line = problems.length === 0 ? "check_layers: every import points inwards" : problems.join("\n");
  log(line);
  if (problems.length > 0) Deno.exit(1);
}
