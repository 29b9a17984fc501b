/** `pagesift` in this process with the real engine, its streams and signals made of variables. */
import { assertEquals } from "@std/assert";
import { type Ending, run } from "../../cli/main.ts";
import { realModels } from "../../cli/system_world.ts";
import type { World } from "../../cli/world.ts";
import { FakeWorld } from "../cli/fake_world.ts";
import { isolateLibrary } from "./device.ts";

/** What a run left behind. */
export interface RealRun {
  ending: Ending;
  stdout: string;
  stderr: string;
}

/** Runs `pagesift generate` on the CPU with the models and the native library that a user has. */
export async function runReal(
  args: readonly string[],
  prepare: (world: FakeWorld) => void = () => {},
): Promise<RealRun> {
  isolateLibrary();
  const fake = new FakeWorld();
  prepare(fake);
  const world: World = {
    ...{ stdin: fake.stdin, stdout: fake.stdout, stderr: fake.stderr, models: realModels },
    env: (name) => fake.env(name),
    columns: () => fake.columns(),
    onEndSignal: (handler) => fake.onEndSignal(handler),
    setKeyMode: () => {},
    suspend: () => {},
    dieBySignal: (signal) => fake.dieBySignal(signal),
  };
  const ending = await run(["generate", "--device", "cpu", "-t", "2", ...args], world);
  return { ending, stdout: fake.stdout.text, stderr: fake.stderr.text };
}

/** Asserts what every refusal owes: this exit code, nothing on stdout, and one line on stderr that holds all `parts`. */
export function assertRefusal({ ending, stdout, stderr }: RealRun, code: number, parts: readonly string[]): void {
  assertEquals([ending, stdout], [{ code }, ""], stderr);
  const lines = stderr.split("\n");
  assertEquals([lines.length, lines[0]?.startsWith("Error: "), lines[1]], [2, true, ""], stderr);
  const absent = parts.filter((part) => !stderr.includes(part));
  assertEquals(absent, [], stderr);
}
