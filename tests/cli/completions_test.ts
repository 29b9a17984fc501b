/** The completion scripts, run by the shells that they are for. A shell that this machine lacks is skipped. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { program } from "../../cli/program.ts";
import { SHELLS } from "../../cli/completions/completions.ts";
import { withFiles } from "../support/folders.ts";
import { runFake } from "./fake_world.ts";

type Complete = (line: string) => Promise<string[]>;

/** Each driver prints the candidates for the last word of `$1`, one a line. */
const DRIVERS: Readonly<Record<string, string>> = {
  bash: `source ./script
COMP_WORDBREAKS=$' \\t\\n"=:'
read -ra COMP_WORDS <<< "\${1//=/ = }"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
_pagesift
printf '%s\\n' "\${COMPREPLY[@]}"`,
  fish: `source ./script
complete -C $argv[1] | string replace -r '\\t.*' ''
true`,
  // Completion in zsh runs only in its line editor. A wrapper of "compadd" writes the candidates to a file.
  zsh: `zmodload zsh/zpty
zpty editor zsh -f -i
send() { zpty -w editor "$1" }
send "PS1= PS2=; autoload -U compinit; compinit -u -d ./dump; source ./script"
send 'finish() { zle complete-word; print -u9 DONE }; zle -N finish; bindkey "^I" finish'
send 'list() { compadd() { builtin compadd -O hits "$@"; print -rl -u9 -- @$^hits; builtin compadd "$@" } }'
send 'exec 9> ./offered; list; print REA''DY'
zpty -r editor seen '*READY*'
zpty -w -n editor "$1"$'\\t'
repeat 400; do grep -q DONE ./offered && break; sleep 0.05; done
sed -n 's/^@//p' ./offered`,
};

async function run(command: string, args: string[], cwd: string): Promise<string> {
  const child = new Deno.Command(command, { args, cwd, env: { HOME: cwd, TERM: "dumb" }, stdin: "null" });
  const { code, stdout, stderr } = await child.output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

async function isMissing(command: string): Promise<boolean> {
  try {
    await new Deno.Command(command, { args: ["--version"], stdout: "null" }).output();
    return false;
  } catch {
    return true;
  }
}

/** Shells may escape spaces, and end folders with a slash and flags with an equals sign. */
function withoutMarks(word: string): string {
  return word.replaceAll("\\", "").replace(/[=/]$/, "");
}

/** Calls `use` in a folder with two files and a folder, with the shell's completions. */
async function withShell(shell: string, use: (complete: Complete) => Promise<void>): Promise<void> {
  const { stdout: script } = await runFake(["completions", shell]);
  await withFiles({ script, driver: DRIVERS[shell] ?? "", "my book.txt": "" }, async (folder) => {
    await Deno.mkdir(join(folder, "model"));
    await use(async (line) => {
      const text = await run(shell, ["./driver", line], folder);
      const words = text.split("\n").filter((word) => word !== "");
      return [...new Set(words.map(withoutMarks))].sort();
    });
  });
}

const cases: [name: string, line: string, offered: string[]][] = [
  ["commands", "pagesift ", program.commands.map(({ name }) => name).sort()],
  ["a command", "pagesift insp", ["inspect-pages"]],
  ["the subjects of bench", "pagesift bench ", ["attention", "generate", "quality"]],
  ["the flags of a subject", "pagesift bench quality --doc", ["--documents"]],
  ["the choices of a flag", "pagesift generate --device ", ["auto", "cpu", "cuda"]],
  ["a choice", "pagesift generate -n 3 --truncate mid", ["middle"]],
  ["a file", "pagesift generate -f my", ["my book.txt"]],
  ["a folder", "pagesift generate -m mo", ["model"]],
];

for (const { name: shell } of SHELLS) {
  const ignore = await isMissing(shell);
  for (const [name, line, offered] of cases) {
    Deno.test({ name: `completions ${shell} complete ${name}`, ignore }, async () => {
      await withShell(shell, async (complete) => {
        assertEquals(await complete(line), offered);
      });
    });
  }

  Deno.test({ name: `completions ${shell} complete a choice after an equals sign`, ignore }, async () => {
    await withShell(shell, async (complete) => {
      const words = (await complete("pagesift generate --sparse=o")).map((word) => word.replace(/^--sparse=/, ""));
      assertEquals(words, ["off", "on"]);
    });
  });
}

Deno.test("completions for an unknown shell end with 2 and name the known ones", async () => {
  const { stderr, ending } = await runFake(["completions", "powershell"]);
  assertEquals(ending, { code: 2 });
  assertStringIncludes(stderr, "bash, zsh, fish");
});
