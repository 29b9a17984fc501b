/** Conversations with a real model in a real pseudo-terminal. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { defaultModelFolder } from "../../../engine/hub/default_model.ts";
import { QUESTION, WITH_FACT } from "../../inspect/runs.ts";
import { hasTerminals, Terminal } from "../../support/terminal.ts";

const MAIN = fromFileUrl(new URL("../../../cli/main.ts", import.meta.url));
const TEMPLATE = "{% for m in messages %}{{ m.content }}{% if not loop.last %}\n{% endif %}{% endfor %}";
const ignore = !hasTerminals();
const CTRL_C = "\x03";
const CTRL_D = "\x04";

/** Calls `use` with a copy of the shipped model that has a chat template. */
async function withChatModel(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for await (const { name } of Deno.readDir(defaultModelFolder())) {
      await Deno.copyFile(join(defaultModelFolder(), name), join(folder, name));
    }
    await Deno.writeTextFile(join(folder, "chat_template.jinja"), TEMPLATE);
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function start(folder: string, ...args: string[]): Terminal {
  const command = [Deno.execPath(), "run", "-A", MAIN, "generate", "--chat", "-m", folder, "--device", "cpu", ...args];
  return new Terminal(command);
}

Deno.test("a conversation in a terminal answers, continues and ends with 0 at Ctrl-D", { ignore }, async () => {
  await withChatModel(async (folder) => {
    await using terminal = start(folder, "-n", "6");
    await terminal.waitFor("> ");
    await terminal.press("The pass key is 71432. Remember it. What is the pass key? The pass key is\r");
    await terminal.waitFor("\n");
    assertStringIncludes(await terminal.waitFor("left"), "71432");
    await terminal.waitFor("> ");
    await terminal.press("The pass key is\r");
    await terminal.waitFor("left");
    await terminal.waitFor("> ");
    await terminal.press(CTRL_D);
    assertEquals(await terminal.end(), 0);
  });
});

Deno.test("Ctrl-C in a terminal ends the answer and leaves the conversation", { ignore }, async () => {
  await withChatModel(async (folder) => {
    await using terminal = start(folder, "-n", "20000");
    await terminal.waitFor("> ");
    await terminal.press("Once upon a time\r");
    await terminal.waitFor("\n");
    await terminal.waitFor(" ");
    await terminal.press(CTRL_C);
    await terminal.waitFor("left");
    await terminal.waitFor("> ");
    await terminal.press("/quit\r");
    assertEquals(await terminal.end(), 0);
  });
});

Deno.test("a terminal edits and echoes lines again after a conversation", { ignore }, async () => {
  await withChatModel(async (folder) => {
    const conversation = `'${Deno.execPath()}' run -A '${MAIN}' generate --chat -m '${folder}' --device cpu`;
    await using terminal = new Terminal(["sh", "-c", `${conversation}; stty -a`]);
    await terminal.waitFor("> ");
    await terminal.press("/quit\r");
    await terminal.end();
    assertMatch(terminal.text, / icanon .* echo /s);
  });
});

Deno.test("/pages in a terminal names the file and line that the last answer read", { ignore }, async () => {
  await withChatModel(async (folder) => {
    const file = join(folder, "notes.txt");
    await Deno.writeTextFile(file, WITH_FACT);
    await using terminal = start(folder, "-n", "6", "-f", file, "--sparse", "on");
    await terminal.waitFor("> ");
    await terminal.press(`${QUESTION}\r`);
    await terminal.waitFor("\n");
    assertStringIncludes(await terminal.waitFor("left"), "48213");
    await terminal.waitFor("> ");
    await terminal.press("/pages\r");
    const line = WITH_FACT.split("48213")[0]?.split("\n").length;
    const shown = await terminal.waitFor("> ");
    assertMatch(shown, /steps chose among [\d,]+ pages/);
    assertStringIncludes(shown, `notes.txt:${line}  `);
    assertMatch(shown, /»[^«]*48213/);
  });
});
