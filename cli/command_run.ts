import type { Interrupt } from "./interrupt.ts";
import type { Output } from "./output.ts";
import type { World } from "./world.ts";

/** Everything that one run of a command uses. */
export interface CommandRun {
  readonly world: World;
  readonly output: Output;
  readonly interrupt: Interrupt;
}
