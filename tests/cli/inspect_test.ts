import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertNotMatch,
  assertStringIncludes,
} from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { inspectOptions } from "../../cli/options/inspect.ts";
import { runDeno } from "../support/process.ts";
import { schemaProblems } from "../support/json_schema.ts";
import { QUESTION } from "../inspect/runs.ts";
import { namesIn, SPARSE, withPrompt } from "./inspect_process.ts";

const MAIN = fromFileUrl(new URL("../../cli/main.ts", import.meta.url));
const SCHEMA = JSON.parse(Deno.readTextFileSync(new URL("../../docs/inspect.schema.json", import.meta.url)));

Deno.test("inspect-pages names the page of the fact by file and line, and shows the answer", async () => {
  await withPrompt(async ({ ask }) => {
    const { code, stdout, stderr } = await ask();
    assertEquals([code, stderr], [0, ""]);
    assertMatch(stdout, /\nanswer +" 48213"\n/);
    assertMatch(stdout, /\n +\d+ +105 +840-847 +b\.txt:3 .* 48213\. From the\n/);
  });
});

Deno.test("inspect-pages gives the tokens that generate gives under the same flags", async () => {
  await withPrompt(async ({ folder, ask }) => {
    const sampling = ["--temp", "0.9", "--top-k", "40", "--seed", "3"];
    const { stdout } = await ask(...sampling, "--json");
    const generate = ["run", "-A", MAIN, "generate", "--device", "cpu", "-t", "2", ...SPARSE, "-n", "6", "--no-stdin"];
    const files = ["-f", "a.txt", "-f", "b.txt", QUESTION];
    const wanted = await runDeno([...generate, ...files, ...sampling, "--json"], {}, folder);
    assertEquals(JSON.parse(stdout).answer.ids, JSON.parse(wanted.stdout).ids);
  });
});

Deno.test("inspect-pages --json matches docs/inspect.schema.json, everything asked for", async () => {
  await withPrompt(async ({ ask }) => {
    const { stdout } = await ask(
      "--json",
      "--compare",
      "unique,diag,quest,mean,oracle",
      "--ablate",
      "page",
      "--top",
      "3",
      "--sparse-prefill",
      "on",
      "--prefill-budget",
      "256",
    );
    const report = JSON.parse(stdout);
    assertEquals(schemaProblems(SCHEMA, report), []);
    assertEquals([report.pages.length, report.scorers.length, report.ablations.length], [3, 6, 3]);
  });
});

Deno.test("inspect-pages --json gives all mass to files, the answer and nothing else", async () => {
  await withPrompt(async ({ ask }) => {
    const { files } = JSON.parse((await ask("--json")).stdout);
    const mass = files.reduce((sum: number, file: { mass: number }) => sum + file.mass, 0);
    assertAlmostEquals(mass, 1, 1e-3);
    assertEquals(files.map(({ source }: { source: string }) => source).sort(), [
      ...["<answer>", "<prompt>", "a.txt", "b.txt"],
    ]);
  });
});

Deno.test("inspect-pages calls text of a pipe <stdin>", async () => {
  await withPrompt(async ({ folder }) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", MAIN, "inspect-pages", "--device", "cpu", "-n", "1", ...SPARSE, "--json", QUESTION],
      cwd: folder,
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(Deno.readFileSync(join(folder, "b.txt")));
    await writer.close();
    const { stdout } = await child.output();
    const { files } = JSON.parse(new TextDecoder().decode(stdout));
    assert(files.some(({ source, pages }: { source: string; pages: number }) => source === "<stdin>" && pages > 50));
  });
});

Deno.test("inspect-pages --chat tells text of the template from text of the file", async () => {
  const model = fromFileUrl(new URL("../fixtures/hf/qwen3-qknorm-f32", import.meta.url));
  await withPrompt(async ({ run }) => {
    const flags = ["--device", "cpu", "-n", "2", "--sparse-budget", "64", "--chat", "--no-stdin", "--json"];
    const { stdout } = await run("-m", model, ...flags, "-f", "a.txt", "Who?");
    const { files, pages } = JSON.parse(stdout);
    const names = files.map(({ source }: { source: string }) => source).sort();
    assertEquals(names, ["<answer>", "<prompt>", "<template>", "a.txt"]);
    const lines = new Set<number>(
      pages.flatMap(({ places }: { places: { first_line: number }[] }) => places[0]!.first_line),
    );
    assert([...lines].every((line) => line >= 1 && line <= 3), String([...lines]));
  }, { "a.txt": "First line of a text.\nSecond line of it, longer.\nThird line, which ends it here.\n" });
});

for (const model of ["llama3-rope-bf16", "llama-f32", "ministral3-bf16", "phi3-fused-f32"]) {
  Deno.test(`inspect-pages finds all text of a prompt in the tokens of ${model}`, async () => {
    const folder = fromFileUrl(new URL(`../fixtures/hf/${model}`, import.meta.url));
    await withPrompt(async ({ run }) => {
      const { code, stderr, stdout } = await run("-m", folder, "--device", "cpu", "-n", "1", "-f", "a.txt", "--json");
      assertEquals([code, stderr], [0, ""]);
      const lines = JSON.parse(stdout).files.map(({ source }: { source: string }) => source);
      assert(lines.includes("a.txt"));
    }, { "a.txt": "A text of two lines,\n  with an indent and a café in it." });
  });
}

Deno.test("inspect-pages --ablate file finds that the file with the fact matters and the other does not", async () => {
  await withPrompt(async ({ ask }) => {
    const { stdout } = await ask("--ablate", "file", "--tsv");
    const rows = stdout.trim().split("\n").map((line) => line.split("\t"));
    assertEquals(rows[0], ["masked", "pages", "mass", "log-probability", "change", "text"]);
    const change = (file: string): number => Number(rows.find(([masked]) => masked === file)?.[4]);
    assert(change("b.txt") < -3 && Math.abs(change("a.txt")) < 1, stdout);
  });
});

Deno.test("inspect-pages --ablate says that share of attention is not cause", async () => {
  await withPrompt(async ({ ask }) => {
    assertStringIncludes((await ask("--ablate", "page", "--top", "1")).stdout, "not cause");
  });
});

Deno.test("inspect-pages without a terminal prints no escape codes", async () => {
  await withPrompt(async ({ ask }) => {
    assertEquals((await ask("--by", "score")).stdout.includes("\x1b"), false);
  });
});

Deno.test("inspect-pages says that a context fits the budget", async () => {
  await withPrompt(async ({ ask }) => {
    const { stdout } = await ask("--sparse-budget", "4096");
    assertMatch(
      stdout,
      /\nsparse +every page fits the budget of 4,096 tokens = 512 pages, read 100\.0 % of KV pages; /,
    );
  });
});

Deno.test("inspect-pages says that no layer selects under --sparse off", async () => {
  await withPrompt(async ({ ask }) => {
    assertMatch((await ask("--sparse", "off")).stdout, /\nsparse +no layer selects, read 100\.0 % of KV pages; /);
  });
});

Deno.test("inspect-pages says that a budget leaves the scorer no choice", async () => {
  await withPrompt(async ({ ask }) => {
    const { stdout } = await ask("--page-size", "64");
    assertStringIncludes(
      stdout.replaceAll(/\s+/g, " "),
      " = 2 pages, all taken by the first and latest pages, selected in",
    );
  });
});

Deno.test("inspect-pages says that layers with a sliding window select nothing", async () => {
  const model = fromFileUrl(new URL("../fixtures/hf/mistral-sliding-bf16", import.meta.url));
  await withPrompt(async ({ run }) => {
    const { stdout } = await run("-m", model, "--device", "cpu", "-n", "1", "-f", "a.txt", "--no-stdin");
    assertMatch(stdout, /\nsparse +every layer has a sliding window/);
  }, { "a.txt": "A text of two lines,\nwhich ends here." });
});

Deno.test("inspect-pages makes control characters of the prompt visible", async () => {
  const files = { "a.txt": "An \x1b[31mescape\x07 in the text. ".repeat(40) };
  await withPrompt(async ({ ask }) => {
    const { stdout } = await ask("--top", "500");
    assertStringIncludes(stdout, "\\x1b[31mescape\\x07");
    // deno-lint-ignore no-control-regex
    assertNotMatch(stdout, /[\x1b\x07]/);
  }, files);
});

Deno.test("inspect-pages --tsv prints as many columns in every line", async () => {
  await withPrompt(async ({ ask }) => {
    const lines = (await ask("--tsv", "--top", "4")).stdout.trimEnd().split("\n");
    assertEquals(lines.length, 5);
    assertEquals(new Set(lines.map((line) => line.split("\t").length)), new Set([9]));
  });
});

Deno.test("inspect-pages --by orders the pages by what it names", async () => {
  await withPrompt(async ({ ask }) => {
    for (const [by, column] of [["selected", 5], ["missed", 5], ["score", 4]] as const) {
      const lines = (await ask("--tsv", "--by", by)).stdout.trimEnd().split("\n").slice(1);
      const values = lines.map((line) => Number(line.split("\t")[column]));
      assertEquals([by, values], [by, values.toSorted((a, b) => b - a)]);
    }
  });
});

Deno.test("inspect-pages leaves nothing behind but the files it was asked for", async () => {
  await withPrompt(async ({ folder, ask }) => {
    assertEquals((await ask("--trace", "t.trace", "--html", "r.html")).code, 0);
    assertEquals(namesIn(folder), ["a.txt", "b.txt", "r.html", "t.trace"]);
  });
});

Deno.test("inspect-pages prints the steps so far on Ctrl-C and dies by it", async () => {
  await withPrompt(async ({ folder }) => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", MAIN, "inspect-pages", "--device", "cpu", "-v", "-f", "b.txt", ...SPARSE, "-n", "20000"],
      cwd: folder,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    for (let seen = ""; !seen.includes("Read prompt");) seen += (await reader.read()).value ?? "";
    await new Promise((resolve) => setTimeout(resolve, 1000));
    child.kill("SIGINT");
    const stdout = await new Response(child.stdout).text();
    assertEquals((await child.status).signal, "SIGINT");
    assertMatch(stdout, /^model .*[\s\S]*\nMissed/);
    await reader.cancel();
  });
});

Deno.test("inspectOptions gives no flag to two options", () => {
  const flags = Object.values(inspectOptions).flatMap((option) => option.flags);
  assertEquals(flags.length, new Set(flags).size);
});

const refused: [args: string[], code: number, message: RegExp][] = [
  [["--layer", "8"], 2, /^Error: --layer 8 .*\b0 to 7\n$/],
  [["--head", "2"], 2, /^Error: --head 2 .*\b0 to 1\n$/],
  [["--step", "6"], 2, /^Error: --step 6 .*\b1 to 5\n$/],
  [["--step", "0"], 2, /^Error: --step 0 is out of range: .*\n$/],
  [["--by", "luck"], 2, /^Error: --by "luck" .*score, mass, selected or missed\n$/],
  [["--compare", "unique,best"], 2, /^Error: --compare "best" .*oracle\n$/],
  [["--html", "absent/r.html"], 2, /^Error: --html "absent\/r\.html" cannot be written: .*\n$/],
  [["--trace", "/dev/null"], 2, /^Error: --trace "\/dev\/null" cannot be written: .*\n$/],
  [
    ["--html", "/proc/r.html"],
    2,
    /^Error: --html "\/proc\/r\.html" cannot be written: (?!.*run again).*\n$/,
  ],
  [["--html", "."], 2, /^Error: --html "\." cannot be written: it is a folder\n$/],
  [
    ["--html", "r", "--trace", "./r"],
    2,
    /^Error: --trace "\.\/r" .*another file of this run; .*\n$/,
  ],
  [["--trace", "./b.txt"], 2, /^Error: --trace "\.\/b\.txt" .*another file of this run; .*\n$/],
  [["--json", "--tsv"], 2, /^Error: --json and --tsv .*\n$/],
  [["--text", "--json"], 2, /^Error: --json and --text .*\n$/],
  [["--text", "--tsv"], 2, /^Error: --tsv and --text .*\n$/],
  [["--replay", "absent"], 2, /^Error: --replay absent and the prompt .* exclude each other\n$/],
  [["--jsonl", "x"], 2, /^Error: Unknown option "--jsonl".*\n$/],
  [["-m", "."], 3, /^Error: .*\n$/],
  [["-c", "64"], 4, /^Error: Prompt is longer than the context: .*\n$/],
];
for (const [args, wanted, message] of refused) {
  Deno.test(`inspect-pages ${args.join(" ")} ends with ${wanted} and one line`, async () => {
    await withPrompt(async ({ folder, ask }) => {
      const { code, stdout, stderr } = await ask(...args);
      assertEquals([code, stdout], [wanted, ""]);
      assertMatch(stderr, message);
      assertEquals(namesIn(folder), ["a.txt", "b.txt"]);
    });
  });
}

Deno.test("inspect-pages refuses a file that it cannot write before it loads a model", async () => {
  await withPrompt(async ({ run }) => {
    const { code, stderr } = await run("-m", "absent", "--html", "absent/r.html", "Hello", "--no-stdin");
    assertEquals(code, 2);
    assertStringIncludes(stderr, "--html");
  });
});
