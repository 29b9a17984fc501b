/** Holds the table of bad inputs in docs/reliability.md against the tests that it names. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { ROOT } from "../../scripts/release/native_library.ts";

const MIN_ROWS = 60;
const MIN_QUOTED = 40;

function rows(): string[][] {
  const text = Deno.readTextFileSync(join(ROOT, "docs", "reliability.md"));
  const section = text.split("\n## Bad inputs\n")[1]?.split("\n## ")[0] ?? "";
  const lines = section.split("\n").filter((line) => line.startsWith("| "));
  return lines.slice(1).map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
}

Deno.test("docs/reliability.md names a test that exists for every bad input", () => {
  const named = rows().filter(([, file]) => file !== "");
  assert(named.length >= MIN_ROWS, `${named.length} rows`);
  const wrong = named.filter(([, file = "", name = ""]) => {
    return name === "" || !Deno.readTextFileSync(join(ROOT, file.replaceAll("`", ""))).includes(name);
  });
  assertEquals(wrong, []);
});

Deno.test("docs/reliability.md quotes of a message only what the test file asks for", () => {
  const quoted = rows().filter(([, file, , message]) => file !== "" && /^`.*`$/.test(message ?? ""));
  assert(quoted.length >= MIN_QUOTED, `${quoted.length} rows`);
  const wrong = quoted.filter(([, file = "", , message = ""]) => {
    return !Deno.readTextFileSync(join(ROOT, file.replaceAll("`", ""))).includes(message.slice(1, -1));
  });
  assertEquals(wrong, []);
});

Deno.test("docs/reliability.md counts the regression inputs of the fuzzer", () => {
  const text = Deno.readTextFileSync(join(ROOT, "docs", "reliability.md"));
  const inputs = [...Deno.readDirSync(join(ROOT, "tests", "fixtures", "fuzz"))].length;
  assertEquals(Number(text.match(/and (\d+) regression inputs/)?.[1]), inputs);
});

Deno.test("docs/reliability.md gives every bad input one of the documented ends", () => {
  const codes = rows().filter(([, file]) => file !== "").map((cells) => cells[4]);
  assertEquals(codes.filter((code) => !/^([0-8]|signal)$/.test(code ?? "")), []);
});
