/** Compiles and links one native library: only what changed since the last time, as many compilations at once as there are cores. */
import { basename, dirname, fromFileUrl, join } from "@std/path";
import { log } from "../output.ts";

export const ROOT = fromFileUrl(new URL("../..", import.meta.url));

const MAX_MESSAGE_LINES = 40;

/** One object file: its source, and what makes it. */
export interface Unit {
  source: string;
  object: string;
  compiler: string;
  flags: readonly string[];
}

/** How a library comes about. */
export interface Plan {
  /** "CPU library", as progress lines call it. */
  title: string;
  library: string;
  /** Folders and files; while none of them is newer than the library, nothing is done. */
  inputs: readonly string[];
  /** All that decides how files are compiled, beside their content; another stamp than the last one compiles everything. */
  stamp: string;
  /** What progress lines say after the compiler's name. */
  note: string;
  /** Looks for the compilers; asked only when there is something to do. */
  prepare(): Promise<Steps>;
}

/** What is to be run. */
export interface Steps {
  units: readonly Unit[];
  /** Compiler and arguments that make a file of all objects. */
  link(objects: readonly string[], output: string): { command: string; args: readonly string[] };
}

/** A build that cannot go on; the message is one line for the user. */
export class BuildError extends Error {}

/** Runs a program in the root of the tree: what it wrote, and whether it ended well; undefined when there is no such program. */
export async function tryRun(command: string, args: readonly string[]): Promise<Outcome | undefined> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(command, {
      args: [...args],
      cwd: ROOT,
      stdout: "piped",
      stderr: "piped",
    }).output();
    const decoder = new TextDecoder();
    return { ok: success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
}

export interface Outcome {
  ok: boolean;
  stdout: string;
  stderr: string;
}

async function run(command: string, args: readonly string[]): Promise<Outcome> {
  return await tryRun(command, args) ?? { ok: false, stdout: "", stderr: `error: There is no program "${command}"` };
}

/** When a file was changed (ms), or 0 where there is none. */
export function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? 0;
  } catch {
    return 0;
  }
}

/** When the newest of all that lies under a path was changed; a folder is as new as its list of names. */
function newest(path: string): number {
  let latest = modified(path);
  if (latest === 0 || !Deno.statSync(path).isDirectory) return latest;
  for (const entry of Deno.readDirSync(path)) latest = Math.max(latest, newest(join(path, entry.name)));
  return latest;
}

/** The sources of a folder, in the order of their names. */
export function sourcesIn(folder: string, extensions: readonly string[]): string[] {
  try {
    return [...Deno.readDirSync(join(ROOT, folder))]
      .filter(({ isFile, name }) => isFile && extensions.some((extension) => name.endsWith(extension)))
      .map(({ name }) => join(ROOT, folder, name)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** `api_device.o` for `csrc/api/device.cpp`, in the folder of the library. */
export function objectFor(source: string, folder: string): string {
  return join(folder, `${basename(dirname(source))}_${basename(source).replace(/\.[^.]+$/, "")}.o`);
}

/** The files a unit includes, itself among them, as the compiler wrote them beside its object. */
function dependencies(unit: Unit): string[] {
  try {
    const text = Deno.readTextFileSync(unit.object.replace(/\.o$/, ".d"));
    return text.replace(/^[^:]*:/, "").replaceAll("\\\n", " ").split(/\s+/).filter((path) => path !== "");
  } catch {
    return [];
  }
}

/** Also where the object was compiled from another copy of the tree, as after copying `build/`. */
function isStale(unit: Unit): boolean {
  const built = modified(unit.object);
  const inputs = dependencies(unit);
  return built === 0 || !inputs.includes(unit.source) ||
    inputs.some((path) => modified(path) === 0 || modified(path) > built);
}

/** What a compiler complains of first. */
function firstError(stderr: string): string {
  const lines = stderr.trim().split("\n");
  return (lines.find((line) => /\berror\b/i.test(line)) ?? lines[0] ?? "").replaceAll(ROOT, "").trim();
}

/** As much of what a compiler says as a person reads. */
function beginning(stderr: string): string {
  const lines = stderr.trimEnd().split("\n");
  const more = lines.length - MAX_MESSAGE_LINES;
  return [...lines.slice(0, MAX_MESSAGE_LINES), ...more > 0 ? [`(and ${more} more lines)`] : []].join("\n");
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function compile(unit: Unit): Promise<void> {
  const temporary = `${unit.object}.${Deno.pid}.tmp`;
  const dependencyFile = unit.object.replace(/\.o$/, ".d");
  const args = [...unit.flags, "-MMD", "-MF", dependencyFile, "-c", unit.source, "-o", temporary];
  const { ok, stderr } = await run(unit.compiler, args);
  if (stderr) log(beginning(stderr));
  if (!ok) {
    removeIfThere(temporary);
    const compiler = basename(unit.compiler);
    throw new BuildError(`${compiler} could not compile ${unit.source.slice(ROOT.length)}: ${firstError(stderr)}`);
  }
  Deno.renameSync(temporary, unit.object);
}

/** The first failure ends it; what else is being compiled then is left alone. */
async function compileAll(stale: readonly Unit[]): Promise<void> {
  const queue = [...stale];
  const workers = Array.from({ length: navigator.hardwareConcurrency }, async () => {
    for (let unit = queue.shift(); unit; unit = queue.shift()) await compile(unit);
  });
  await Promise.all(workers);
}

async function link(library: string, steps: Steps): Promise<void> {
  const temporary = `${library}.${Deno.pid}.tmp`;
  const { command, args } = steps.link(steps.units.map(({ object }) => object), temporary);
  const { ok, stderr } = await run(command, args);
  if (!ok) {
    removeIfThere(temporary);
    throw new BuildError(`${basename(command)} could not link ${basename(library)}: ${firstError(stderr)}`);
  }
  Deno.renameSync(temporary, library);
}

function stampOf(library: string): string | undefined {
  try {
    return Deno.readTextFileSync(`${library}.flags`);
  } catch {
    return undefined;
  }
}

/** Forgets all objects, which were made in another way than now. */
function startAnew({ library, stamp }: Plan, units: readonly Unit[]): void {
  Deno.mkdirSync(dirname(library), { recursive: true });
  for (const { object } of units) removeIfThere(object);
  Deno.writeTextFileSync(`${library}.flags`, stamp);
}

/** Whether the library is newer than all that it is made of. */
function isCurrent({ library, inputs }: Plan): boolean {
  return modified(library) > Math.max(...inputs.map((input) => newest(input)));
}

/**
 * Brings a library up to date, and prints nothing when it is.
 *
 * @throws {BuildError}
 */
export async function buildLibrary(plan: Plan): Promise<void> {
  const { library, title, note, stamp } = plan;
  const stamped = stampOf(library) === stamp;
  if (stamped && isCurrent(plan)) return;
  const steps = await plan.prepare();
  if (!stamped) startAnew(plan, steps.units);
  const stale = steps.units.filter(isStale);
  const compilers = [...new Set(stale.map(({ compiler }) => compiler))].join(" and ");
  const started = performance.now();
  log(
    `build: compiling ${stale.length} of ${steps.units.length} files of the ${title}` +
      (stale.length > 0 ? ` with ${compilers}${note}` : ""),
  );
  await compileAll(stale);
  await link(library, steps);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const megabytes = (Deno.statSync(library).size / 1e6).toFixed(1);
  log(`build: ${library.slice(ROOT.length)} (${megabytes} MB) is ready after ${seconds} s`);
}
