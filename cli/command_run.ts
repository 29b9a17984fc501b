import type { Interrupt } from "./interrupt.ts";
import type { Output } from "./output.ts";
import type { World } from "./world.ts";

/** What one run of a command works with. */
export interface CommandRun {
  readonly world: World;
  readonly output: Output;
  readonly interrupt: Interrupt;
}
