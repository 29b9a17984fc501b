import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { runFake, type RunResult } from "./fake_world.ts";
import { readBytes, withPrompt } from "./inspect_process.ts";

/** Records once and calls `work` with the folder and the trace's path. */
async function withTrace(
  args: string[],
  work: (trace: string, folder: string, live: string) => Promise<void>,
): Promise<void> {
  await withPrompt(async ({ folder, ask }) => {
    const { code, stdout } = await ask("--trace", "t.trace", ...args);
    assertEquals(code, 0);
    await work(join(folder, "t.trace"), folder, stdout);
  });
}

/** Shows a trace in a world whose stdout may be a terminal, where no model can be found. */
function replay(trace: string, args: string[] = [], terminal = false): Promise<RunResult> {
  return runFake(["inspect-pages", "--replay", trace, ...args], (world) => {
    world.stdout.terminal = terminal;
    world.models.findModelFolder = () => Promise.reject(new Error("A replay looked for a model"));
  });
}

Deno.test("inspect-pages --replay shows every view as the run did", async () => {
  for (
    const view of [["--by-file"], ["--json", "--layer", "3", "--top", "40"], ["--tsv", "--by", "missed", "--step", "2"]]
  ) {
    await withTrace(view, async (trace, _, live) => {
      const { stdout, ending } = await replay(trace, view);
      assertEquals([ending, stdout], [{ code: 0 }, live]);
    });
  }
});

Deno.test("inspect-pages --replay shows scorers and masked pages that were recorded", async () => {
  await withTrace(["--compare", "mean,quest,oracle", "--ablate", "page", "--top", "2"], async (trace, _, live) => {
    assertEquals((await replay(trace, ["--compare", "mean,quest,oracle", "--top", "2"])).stdout, live);
    assertMatch(
      (await replay(trace, ["--compare", "oracle", "--tsv"])).stdout,
      /^scorer\t.*\nthis run .*\noracle\t1\t/,
    );
  });
});

Deno.test("inspect-pages --replay --ablate --tsv prints the masked pages that were recorded", async () => {
  const view = ["--ablate", "page", "--top", "2", "--tsv"];
  await withTrace(view, async (trace, _, live) => assertEquals((await replay(trace, view)).stdout, live));
});

Deno.test("inspect-pages --replay --ablate ends with 2 for what was not masked in the recording", async () => {
  await withTrace(["--ablate", "file"], async (trace) => {
    const { ending, stderr } = await replay(trace, ["--ablate", "page"]);
    assertEquals(ending, { code: 2 });
    assertMatch(
      stderr,
      /^Error: --ablate page cannot be shown: trace ".*" masks each file; record it again with --ablate page\n$/,
    );
  });
});

Deno.test("inspect-pages --replay writes the same HTML as the run", async () => {
  await withTrace(["--html", "r.html"], async (trace, folder) => {
    await replay(trace, ["--html", join(folder, "again.html")]);
    assertEquals(readBytes(folder, "again.html"), readBytes(folder, "r.html"));
  });
});

Deno.test("inspect-pages --trace takes less than 30 bytes a page and row-step", async () => {
  await withTrace([], async (trace) => {
    const [rows, pages] = [5 * 8 * 2, 211];
    assert((await Deno.stat(trace)).size < 30 * pages * 16 + 150 * rows);
  });
});

Deno.test("inspect-pages --replay on a terminal is as wide as the terminal and coloured", async () => {
  await withTrace([], async (trace) => {
    const { stdout } = await replay(trace, [], true);
    assertStringIncludes(stdout, "\x1b[38;5;");
    // deno-lint-ignore no-control-regex
    const widths = stdout.replaceAll(/\x1b\[[0-9;]*m/g, "").split("\n").map((line) => [...line].length);
    assert(widths.every((width) => width <= 80), String(widths));
    assert(widths.includes(80));
    assertMatch(stdout, /page\s+recall\s+\d/);
  });
});

Deno.test("inspect-pages --replay on a terminal under NO_COLOR is plain", async () => {
  await withTrace([], async (trace) => {
    const { stdout } = await runFake(["inspect-pages", "--replay", trace], (world) => {
      world.stdout.terminal = true;
      world.variables["NO_COLOR"] = "1";
    });
    assertEquals(stdout.includes("\x1b"), false);
  });
});

Deno.test("inspect-pages --replay refuses what the trace does not hold, with 2 and the legal range", async () => {
  await withTrace([], async (trace) => {
    const step = await replay(trace, ["--step", "9"]);
    assertEquals(step.ending, { code: 2 });
    assertMatch(step.stderr, /^Error: --step 9 .*1 to 5\n$/);
    const compare = await replay(trace, ["--compare", "quest"]);
    assertMatch(
      compare.stderr,
      /^Error: --compare quest cannot be shown: trace ".*" compares no scorers; record it again with --compare\n$/,
    );
    const ablate = await replay(trace, ["--ablate", "page"]);
    assertMatch(
      ablate.stderr,
      /^Error: --ablate page cannot be shown: trace ".*" masks nothing; record it again with --ablate page\n$/,
    );
  });
});

Deno.test("inspect-pages --replay ends with 3 and one line for a trace cut anywhere, damaged, or of another version", async () => {
  await withTrace([], async (trace, folder) => {
    const bytes = readBytes(folder, "t.trace");
    const flipped = bytes.slice();
    flipped[Math.floor(bytes.length / 2)]! ^= 4;
    const later = new Uint8Array([...new TextEncoder().encode("PAGESIFT-TRACE/2\n"), ...bytes.subarray(17)]);
    const bad: [name: string, content: Uint8Array, message: RegExp][] = [
      ["empty", new Uint8Array(), /is no trace of inspect-pages/],
      ["text", new TextEncoder().encode("Once upon a time\n"), /is no trace of inspect-pages/],
      ["headless", bytes.subarray(0, 17), /damaged or cut short/],
      ["half", bytes.subarray(0, bytes.length >> 1), /damaged or cut short/],
      ["almost", bytes.subarray(0, -1), /damaged or cut short/],
      ["flipped", flipped, /damaged or cut short/],
      ["later", later, /is of version 2, this program reads version 1/],
    ];
    for (const [name, content, message] of bad) {
      Deno.writeFileSync(trace, content);
      const { ending, stdout, stderr } = await replay(trace);
      assertEquals([name, ending, stdout], [name, { code: 3 }, ""]);
      assertMatch(stderr, message);
      assertMatch(stderr, /^Error: [^\n]*\n$/);
    }
  });
});

Deno.test("inspect-pages --replay ends with 2 for a file that is not there", async () => {
  const { ending, stderr } = await replay("/absent/t.trace");
  assertEquals(ending, { code: 2 });
  assertMatch(stderr, /^Error: --replay "\/absent\/t\.trace" cannot be read: .*\n$/);
});

Deno.test("inspect-pages --help keeps lines within 120 columns and needs no library", async () => {
  const { stdout } = await runFake(["inspect-pages", "--help"]);
  assertMatch(stdout, /^Usage: pagesift inspect-pages/);
  assertEquals(stdout.split("\n").filter((line) => line.length > 120), []);
});
