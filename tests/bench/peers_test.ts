import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { parsePeers, PeerTable } from "../../bench/peers.ts";
import { PagesiftError } from "../../engine/errors.ts";
import { attentionRow } from "./tiny.ts";

const attention = {
  ...{ subject: "attention", arm: "sdpa", batch: 1, context_tokens: 4096, query_heads: 32, kv_heads: 8 },
  ...{ head_dim: 128, median_us: 50, bytes: 2e6 },
};
const generate = { subject: "generate", arm: "llama.cpp", batch: 2, depth_tokens: 0, decode_tokens: 64 };

function lines(...rows: unknown[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

Deno.test("parsePeers() skips rows of the other subject and empty lines", () => {
  const text = lines(attention) + "\n" + lines({ ...generate, median_us: 9 });
  assertEquals(parsePeers("a", text, "attention").map(({ place }) => place), ["a:1"]);
});

Deno.test("parsePeers() makes the time of a step from the speed", () => {
  const [peer] = parsePeers("a", lines({ ...generate, tokens_per_s: 200 }), "generate");
  assertAlmostEquals(peer?.row.median_us ?? NaN, 10_000, 1e-6);
});

Deno.test("parsePeers() makes the speed of a prompt from its time", () => {
  const { decode_tokens: _, ...prompt } = generate;
  const [peer] = parsePeers("a", lines({ ...prompt, prompt_tokens: 512, median_us: 1e6 }), "generate");
  assertEquals(peer?.row.tokens_per_s, 512);
});

Deno.test("parsePeers() makes bandwidth from bytes", () => {
  assertEquals(parsePeers("a", lines(attention), "attention")[0]?.row.gb_per_s, 40);
});

const { batch: _, ...noBatch } = attention;
const wrong: [name: string, text: string, message: string][] = [
  ["what is not JSON", lines(attention) + "{", "Peer row p:2 is not JSON"],
  ["what is no object", "[1]", "Peer row p:1 is not an object"],
  ["an unknown subject", lines({ ...attention, subject: "speed" }), 'field "subject" is "speed"'],
  ["an unknown field", lines({ ...attention, median_ms: 1 }), 'field "median_ms" is unknown'],
  ["a missing field", lines(noBatch), 'field "batch" is missing'],
  ["a field of the wrong type", lines({ ...attention, batch: "1" }), 'field "batch" is "1"'],
  ["a time of zero", lines({ ...attention, median_us: 0 }), "a number above 0"],
  ["control characters", lines({ ...attention, arm: "a\u001b[1m" }), 'field "arm"'],
  ["no time", lines({ ...attention, median_us: undefined }), 'field "median_us" is missing'],
  ["a generate row of no kind", lines({ ...generate, decode_tokens: undefined, median_us: 1 }), "prompt_tokens"],
  ["a spread beside the median", lines({ ...attention, low_us: 60 }), "low_us <= median_us"],
];
for (const [name, text, message] of wrong) {
  Deno.test(`parsePeers() refuses ${name} and says where`, () => {
    assertEquals(assertThrows(() => parsePeers("p", text, "attention"), PagesiftError, message).kind, "usage");
  });
}

function table(...rows: unknown[]): PeerTable {
  return new PeerTable(parsePeers("p", lines(...rows), "attention"), "Some CPU");
}

Deno.test("PeerTable.besides() gives the speed over our dense arm of the same settings", () => {
  assertEquals(
    table(attention).besides([attentionRow({ peak_gb_per_s: 80 })]).map((row) => [row.of_dense, row.of_peak]),
    [[2, 0.5]],
  );
});

Deno.test("PeerTable.besides() gives no share of our peak to a row of another device", () => {
  assertEquals(
    table({ ...attention, device: "Other" }).besides([attentionRow({ peak_gb_per_s: 80 })])[0]?.of_peak,
    undefined,
  );
});

Deno.test("PeerTable.besides() gives every row once", () => {
  const peers = table(attention);
  peers.besides([attentionRow()]);
  assertEquals(peers.besides([attentionRow()]), []);
});

Deno.test("PeerTable.unmatched holds rows whose settings nobody measured", () => {
  const peers = table({ ...attention, context_tokens: 99 }, { ...attention, dtype: "f16" });
  peers.besides([attentionRow()]);
  assertEquals(peers.unmatched.map(({ place }) => place), ["p:1", "p:2"]);
});

Deno.test("PeerTable.otherDevices names devices that are not ours", () => {
  assertEquals(table({ ...attention, device: "Other" }, { ...attention, device: "Some CPU" }).otherDevices, ["Other"]);
});
