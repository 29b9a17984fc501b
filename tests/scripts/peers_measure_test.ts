/** What becomes of measured times: rows, the choice among settings, the table, and the noise of other programs. */
import { assertEquals, assertMatch } from "@std/assert";
import { parsePeers } from "../../bench/peers.ts";
import type { PeerArm } from "../../scripts/peers/arms.ts";
import { describe, fastest, measureAll, type Measured, rowOf } from "../../scripts/peers/measure.ts";
import { readOptions } from "../../scripts/peers/options.ts";
import { busyTicks, LoadWatch, processTicks } from "../../scripts/peers/machine_load.ts";
import { tableLine } from "../../scripts/peers/table.ts";

const FACTS = { model: "default", program: "llama.cpp v0", device: "A CPU", command: "deno run" };

/** An arm that notes what it is asked for. */
function fakeArm(name: string, calls: string[] = []): PeerArm {
  const note = (call: string): Promise<number> => Promise.resolve(calls.push(`${name} ${call}`));
  return {
    ...{ name, settings: "f16", dtype: "f16", isPeer: name === "llama.cpp" },
    append: (at, ids) => note(`append ${at}+${ids.length}`),
    decode: (at, ids) => note(`decode ${at}+${ids.length}`),
  };
}

function measured(name: string, milliseconds: readonly number[]): Measured {
  const settings = { decode_tokens: 32, depth_tokens: 4096 };
  return { arm: fakeArm(name), settings, seconds: milliseconds.map((ms) => ms / 1000), disturbed: 0, noisy: 0 };
}

Deno.test("bench accepts a row of llama.cpp", () => {
  const line = JSON.stringify(rowOf(measured("llama.cpp", [2, 3, 4]), FACTS));
  assertEquals(parsePeers("rows", line, "generate").map(({ row }) => row.median_us), [3000]);
});

Deno.test("a row omits its dtype, which may differ from ours", () => {
  assertEquals(rowOf(measured("llama.cpp", [2]), FACTS).dtype, undefined);
});

Deno.test("the setting with the smallest median counts", () => {
  const [slow, fast] = [measured("llama.cpp", [4, 4, 1]), measured("llama.cpp", [3, 3, 9])];
  assertEquals(fastest([slow, fast]), fast);
});

Deno.test("the table divides ours by the fastest peer, and that by sparse", () => {
  const cell = [
    measured("dense", [3]),
    measured("sparse", [1]),
    measured("llama.cpp", [4]),
    measured("llama.cpp", [2]),
  ];
  assertMatch(tableLine(cell), /\| 1\.50 \| 2\.00 x \|$/);
});

Deno.test("a result reports how many repetitions were disturbed", () => {
  assertMatch(
    describe({ ...measured("dense", [1]), disturbed: 3, noisy: 1 }),
    /3 disturbed .* 1 disturbed but counted/,
  );
});

Deno.test("arms alternate, and only those with their own cache prefill prompts", async () => {
  const calls: string[] = [];
  const arms = ["dense", "sparse", "llama.cpp"].map((name) => fakeArm(name, calls));
  const plan = { depths: [4, 6], decodeTokens: 2, prompts: [], repetitions: 1, ids: [1, 2, 3, 4, 5, 6, 7, 8, 9] };
  await Array.fromAsync(measureAll(arms, new LoadWatch([]), plan, { tries: 1, log: () => {} }));
  assertEquals(calls, [
    ...["dense append 0+4", "llama.cpp append 0+4", "dense decode 4+3", "sparse decode 4+3", "llama.cpp decode 4+3"],
    ...["dense append 4+2", "llama.cpp append 4+2", "dense decode 6+3", "sparse decode 6+3", "llama.cpp decode 6+3"],
  ]);
});

Deno.test("busy ticks leave out idle and waiting", () => {
  assertEquals(busyTicks("cpu  10 1 5 1000 200 2 3 4 0 0\ncpu0 5 0 0 0 0 0 0 0 0 0\n"), 25);
});

Deno.test("a process's ticks are found after a name with spaces and parentheses", () => {
  assertEquals(processTicks("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 1"), 42);
});

/** A machine on which `busy` ticks pass between two looks, `own` of them in process 7. */
function watchOf(busy: number, own: number): LoadWatch {
  let looks = -1;
  return new LoadWatch([7], (path) => {
    if (path === "/proc/stat") return `cpu ${looks * busy} 0 0 0 0 0 0 0`;
    looks++; // the processes are looked at first
    return `7 (deno) S 1 7 7 0 -1 0 0 0 0 0 ${looks * own} 0`;
  });
}

Deno.test("our own work does not count as load", async () => {
  assertEquals((await watchOf(50, 50).during(() => {})).foreignCores, 0);
});

Deno.test("the work of other programs counts as load", async () => {
  assertEquals((await watchOf(50, 20).during(() => {})).foreignCores > 0, true);
});

Deno.test("depths are sorted, because each continues the previous one", () => {
  assertEquals(readOptions(["--depths", "200,100"], { depths: "", variants: "f16:on" }).depths, [100, 200]);
});
