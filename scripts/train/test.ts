/** Runs the training tests in a separate environment, `build/train-venv`, with this project installed in place. */
import { join } from "@std/path";
import { log, print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { countLine } from "../gate/test_run.ts";
import { runTrainTests, VENV } from "./python.ts";

const PROJECT = join(ROOT, "scripts", "train");
/** A copy of pyproject.toml, written once all its dependencies are installed. */
const STAMP = join(VENV, "pyproject.toml");

async function install(): Promise<void> {
  const required = await Deno.readTextFile(join(PROJECT, "pyproject.toml"));
  if (await Deno.readTextFile(STAMP).catch(() => "") === required) return;
  log("test:train: installing scripts/train[cpu] into build/train-venv");
  const steps: [string, string[]][] = [
    ["python3", ["-m", "venv", VENV]],
    [join(VENV, "bin", "python"), ["-m", "pip", "install", "--quiet", "--editable", `${PROJECT}[cpu]`]],
  ];
  for (const [command, args] of steps) {
    const { success } = await new Deno.Command(command, { args, stdin: "null" }).spawn().status;
    if (!success) {
      log(
        `test:train: ${command} ${args.join(" ")} failed; install scripts/train[cpu] manually and set`,
      );
      log("PAGESIFT_TRAIN_PYTHON to that Python for deno task test");
      Deno.exit(1);
    }
  }
  await Deno.writeTextFile(STAMP, required);
}

await install();
const { success, counts, text } = runTrainTests(join(VENV, "bin", "python"));
print(text);
print(countLine(counts));
if (!success) Deno.exit(1);
