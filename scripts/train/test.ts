/** Tests of training, with an environment of their own in `build/train-venv` that the pinned requirements fill. */
import { join } from "@std/path";
import { log, print } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { countLine } from "../gate/test_run.ts";
import { runTrainTests, VENV } from "./python.ts";

const REQUIREMENTS = join(ROOT, "scripts", "train", "requirements-cpu.txt");
const STAMP = join(VENV, "requirements.txt");

async function install(): Promise<void> {
  const wanted = await Deno.readTextFile(REQUIREMENTS);
  if (await Deno.readTextFile(STAMP).catch(() => "") === wanted) return;
  log(`Installs what ${REQUIREMENTS} names into ${VENV}`);
  const steps: [string, string[]][] = [
    ["python3", ["-m", "venv", VENV]],
    [join(VENV, "bin", "python"), ["-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]],
  ];
  for (const [command, args] of steps) {
    const { success } = await new Deno.Command(command, { args, stdin: "null" }).spawn().status;
    if (!success) {
      log(`test:train: ${command} ${args.join(" ")} failed; install the requirements by hand and name that Python in`);
      log("PAGESIFT_TRAIN_PYTHON for the main test command");
      Deno.exit(1);
    }
  }
  await Deno.writeTextFile(STAMP, wanted);
}

await install();
const { success, counts, text } = runTrainTests(join(VENV, "bin", "python"));
print(text);
print(countLine(counts));
if (!success) Deno.exit(1);
