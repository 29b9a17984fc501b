/**
 * Tools of the gate that come as Python packages: the versions that `requirements.txt` pins, in an environment of their own in
 * `build/gate-venv`.
 */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";
import { log } from "../output.ts";

const VENV = join(ROOT, "build", "gate-venv");
const REQUIREMENTS = join(ROOT, "scripts", "gate", "requirements.txt");
/** A copy of the requirements, written once all of them are installed. */
const STAMP = join(VENV, "installed.txt");

export type PythonTool = "clang-format" | "ruff";

async function runVisibly(command: string, args: readonly string[]): Promise<boolean> {
  return (await new Deno.Command(command, { args: [...args], cwd: ROOT, stdin: "null" }).spawn().status).success;
}

async function install(): Promise<void> {
  const required = await Deno.readTextFile(REQUIREMENTS);
  if (await Deno.readTextFile(STAMP).catch(() => "") === required) return;
  log(`python_tools: installing ${required.trim().replaceAll("\n", " and ")} into build/gate-venv`);
  const steps: [command: string, args: string[]][] = [
    ["python3", ["-m", "venv", "--clear", VENV]],
    [join(VENV, "bin", "python"), ["-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS]],
  ];
  for (const [command, args] of steps) {
    if (await runVisibly(command, args)) continue;
    throw new Error(`python_tools: "${command} ${args.join(" ")}" failed; install python3 with venv and pip`);
  }
  await Deno.writeTextFile(STAMP, required);
}

/** The path of a tool in its pinned version, installed when it is missing or the version has changed. */
export async function pythonTool(name: PythonTool): Promise<string> {
  await install();
  return join(VENV, "bin", name);
}

/** Runs a tool in the root of the tree, with its output on the terminal. Whether it succeeded. */
export async function runPythonTool(name: PythonTool, args: readonly string[]): Promise<boolean> {
  return await runVisibly(await pythonTool(name), args);
}
