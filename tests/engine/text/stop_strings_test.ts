import { assertEquals, assertThrows } from "@std/assert";
import { PagesiftError } from "../../../engine/errors.ts";
import { StopStrings } from "../../../engine/text/stop_strings.ts";

/** Everything that comes out for `pieces`, the flush included, and whether it stopped. */
function run(stops: string[], pieces: Iterable<string>): [text: string, stopped: boolean] {
  const filter = new StopStrings(stops);
  let out = "";
  let last = false;
  for (const piece of pieces) {
    const { text, stopped } = filter.push(piece);
    out += text;
    last = stopped;
  }
  return [out + filter.flush(), last];
}

Deno.test("StopStrings passes text through without stop strings", () => {
  assertEquals(new StopStrings([]).push("any text"), { text: "any text", stopped: false });
});

Deno.test("StopStrings cuts at a stop string inside a piece", () => {
  assertEquals(new StopStrings(["END"]).push("one END two"), { text: "one ", stopped: true });
});

Deno.test("StopStrings finds a stop string that spans pieces", () => {
  assertEquals(run(["\n\nUser:"], ["Hi.", "\n", "\nUs", "er", ": no"]), ["Hi.", true]);
});

Deno.test("StopStrings holds back only what could begin a stop string", () => {
  const filter = new StopStrings(["STOP"]);
  assertEquals(filter.push("a ST"), { text: "a ", stopped: false });
  assertEquals(filter.push("EP S"), { text: "STEP ", stopped: false });
  assertEquals(filter.flush(), "S");
});

Deno.test("StopStrings restarts inside a failed beginning", () => {
  assertEquals(run(["aab"], ["a", "a", "a", "b", "c"]), ["a", true]);
});

Deno.test("StopStrings takes the stop string that is complete first", () => {
  assertEquals(run(["two", "one"], ["zero one two"]), ["zero ", true]);
});

Deno.test("StopStrings takes the longest of stop strings that end together", () => {
  assertEquals(run(["d", "bcd"], ["abcde"]), ["a", true]);
});

Deno.test("StopStrings cuts at the same place however the text is split", () => {
  for (const stops of [["cd", "abcdX"], ["abcdX", "cd"], ["e"], ["Xy", "yz"]]) {
    assertEquals(run(stops, "zabcdXyz"), run(stops, ["zabcdXyz"]));
  }
});

Deno.test("StopStrings drops everything after the stop", () => {
  const filter = new StopStrings(["."]);
  filter.push("a.b");
  assertEquals(filter.push("c"), { text: "", stopped: true });
  assertEquals(filter.flush(), "");
});

Deno.test("StopStrings flushes once", () => {
  const filter = new StopStrings(["xyz"]);
  filter.push("x");
  assertEquals([filter.flush(), filter.flush()], ["x", ""]);
});

Deno.test("StopStrings refuses an empty stop string", () => {
  assertEquals(assertThrows(() => new StopStrings(["a", ""]), PagesiftError).kind, "usage");
});
