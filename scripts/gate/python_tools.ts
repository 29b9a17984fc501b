/**
 * Tools of the gate that are Python packages: the versions that `requirements.txt` pins, in a separate environment in
 * `build/gate-venv`.
 */
import { join, relative } from "@std/path";
import { ROOT } from "../release/native_library.ts";
import { log } from "../output.ts";

const VENV = join(ROOT, "build", "gate-venv");
const REQUIREMENTS = join(ROOT, "scripts", "gate", "requirements.txt");
/** Stamp file with the packages of an environment, written once all of them are installed. */
const STAMP = "installed.txt";

export type PythonTool = "clang-format" | "ruff";

async function runVisibly(command: string, args: readonly string[]): Promise<boolean> {
  return (await new Deno.Command(command, { args: [...args], cwd: ROOT, stdin: "null" }).spawn().status).success;
}

/**
 * The `bin` folder of a Python environment in `venv` with these packages, pinned as `name==version`; created if it is missing or
 * the packages have changed.
 */
export async function pythonEnvironment(venv: string, packages: readonly string[]): Promise<string> {
  const programs = join(venv, "bin");
  const stamp = join(venv, STAMP);
  const required = `${packages.join("\n")}\n`;
  if (await Deno.readTextFile(stamp).catch(() => "") === required) return programs;
  log(`python_tools: installing ${packages.join(" and ")} into ${relative(ROOT, venv)}`);
  const steps: [command: string, args: string[]][] = [
    ["python3", ["-m", "venv", "--clear", venv]],
    [join(programs, "python"), ["-m", "pip", "install", "--quiet", ...packages]],
  ];
  for (const [command, args] of steps) {
    if (await runVisibly(command, args)) continue;
    throw new Error(`python_tools: "${command} ${args.join(" ")}" failed; install python3 with venv and pip`);
  }
  await Deno.writeTextFile(stamp, required);
  return programs;
}

/** The path of a tool in its pinned version, installed if it is missing or the version has changed. */
export async function pythonTool(name: PythonTool): Promise<string> {
  const packages = (await Deno.readTextFile(REQUIREMENTS)).trim().split("\n");
  return join(await pythonEnvironment(VENV, packages), name);
}

/** Runs a tool in the root of the tree, with its output on the terminal. Returns whether it succeeded. */
export async function runPythonTool(name: PythonTool, args: readonly string[]): Promise<boolean> {
  return await runVisibly(await pythonTool(name), args);
}
