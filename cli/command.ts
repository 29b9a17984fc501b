import type { HelpText } from "./help.ts";
import type { OptionTable, Values } from "./options/option.ts";
import type { commonOptions } from "./options/common.ts";
import type { CommandRun } from "./command_run.ts";

type Common = typeof commonOptions;

/** A command of the program. */
export interface Command<T extends OptionTable & Common = Common> {
  readonly name: string;
  /** One line for the program's own help. */
  readonly summary: string;
  readonly help: HelpText;
  readonly options: T;
  run(values: Values<T>, words: readonly string[], session: CommandRun): Promise<void>;
}

/** Hides the type of a command's option table, so that commands with different tables fit in one list. */
export function defineCommand<T extends OptionTable & Common>(command: Command<T>): Command {
  return command as unknown as Command;
}
