import denoConfig from "../deno.json" with { type: "json" };
import { type ErrorKind, PagesiftError, reasonOf } from "../engine/errors.ts";
import { parseArguments } from "./args.ts";
import type { Command } from "./command.ts";
import { renderHelp } from "./help.ts";
import { Interrupt } from "./interrupt.ts";
import { entryOf, isMenu, type Menu, menuHelp, menuOptions, noEntry } from "./menu.ts";
import { Output, OutputError } from "./output.ts";
import type { CommandRun } from "./command_run.ts";
import { orientation, program } from "./program.ts";
import { systemWorld } from "./system_world.ts";
import type { EndSignal, World } from "./world.ts";

/** How the process ends. */
export type Ending = { code: number } | { signal: EndSignal };

const INTERNAL_ERROR = 1;

const EXIT_CODES: Readonly<Record<ErrorKind, number>> = {
  usage: 2,
  model: 3,
  context: 4,
  device: 5,
  memory: 6,
  network: 7,
  numeric: 8,
};

/** Milliseconds to wait for a signal that the process has sent to itself. */
const SIGNAL_GRACE_MS = 1000;

/** Runs the program in a world and returns how the process must end. */
export async function run(args: readonly string[], world: World): Promise<Ending> {
  using interrupt = new Interrupt(world);
  const session = { world, interrupt, output: new Output(world) };
  const code = await runProgram(args, session).catch((error) => reportFailure(error, session));
  return interrupt.received === undefined ? { code } : { signal: interrupt.received };
}

function runProgram(args: readonly string[], session: MutableRun): Promise<number> {
  return runMenu(program, "", args, session);
}

/** `path`: the words that lead to this menu, each followed by a space. */
async function runMenu(menu: Menu, path: string, args: readonly string[], session: MutableRun): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name.startsWith("-")) return runWithoutCommand(menu, path, args, session.output);
  const entry = entryOf(menu, name);
  if (isMenu(entry)) return await runMenu(entry, `${path}${name} `, rest, session);
  return await runCommand(entry, rest, session);
}

async function runCommand(command: Command, args: readonly string[], session: MutableRun): Promise<number> {
  const { values, positional } = parseArguments(command.options, args);
  session.output = new Output(session.world, values);
  if (values.help) session.output.result(renderHelp(command.help, command.options));
  else if (values.version) session.output.result(versionLine());
  else await command.run(values, positional, session);
  return 0;
}

/** The output depends on the flags, so it is replaced once they are parsed. */
interface MutableRun extends CommandRun {
  output: Output;
}

function runWithoutCommand(menu: Menu, path: string, args: readonly string[], output: Output): number {
  const { values } = parseArguments(menuOptions, args);
  if (values.help) output.result(menuHelp(menu, path));
  else if (values.version) output.result(versionLine());
  else if (menu === program) output.result(orientation());
  else throw noEntry(menu);
  return 0;
}

function versionLine(): string {
  return `pagesift ${denoConfig.version}\n`;
}

/** Prints why the run failed and returns its exit code; prints nothing if a signal ended the run. */
function reportFailure(error: unknown, { output, interrupt }: CommandRun): number {
  output.clearStatus();
  const { code, message } = describeFailure(error);
  if (message === undefined || interrupt.received !== undefined) return code;
  output.error(message);
  if (code === INTERNAL_ERROR && error instanceof Error) output.trace(error);
  return code;
}

/** Exit code and message of a failure. A reader that closes stdout early, as `head` does, is not a failure. */
function describeFailure(error: unknown): { code: number; message?: string } {
  if (error instanceof PagesiftError) return { code: EXIT_CODES[error.kind], message: error.message };
  if (error instanceof OutputError) {
    return error.closed ? { code: 0 } : { code: INTERNAL_ERROR, message: error.message };
  }
  if (isOutOfMemory(error)) return { code: EXIT_CODES.memory, message: `Not enough memory: ${error.message}` };
  return { code: INTERNAL_ERROR, message: `Internal error: ${reasonOf(error)}; --verbose shows the stack` };
}

/** What the JavaScript engine throws when a buffer cannot be allocated. */
function isOutOfMemory(error: unknown): error is RangeError {
  return error instanceof RangeError &&
    /allocation failed|invalid (typed )?array( buffer)? length/i.test(error.message);
}

/** Dies by the signal rather than with a code, so that a calling script sees it and stops as well. */
function dieBySignal(signal: EndSignal): void {
  Deno.kill(Deno.pid, signal);
}

if (import.meta.main) {
  const ending = await run(Deno.args, systemWorld(dieBySignal));
  if ("code" in ending) Deno.exit(ending.code);
  dieBySignal(ending.signal);
  await new Promise((resolve) => setTimeout(resolve, SIGNAL_GRACE_MS));
  Deno.exit(INTERNAL_ERROR);
}
