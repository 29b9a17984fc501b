import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { massCode, massOf, scoreCode, scoreOf } from "../../inspect/codes.ts";
import { type Entry, RowLog } from "../../inspect/row_log.ts";
import { countShared, standardize, toRow } from "../../inspect/row_math.ts";

const entry = (page: number, selected: boolean, wanted: boolean): Entry => ({
  page,
  selected,
  wanted,
  mass: 1,
  score: 0,
});

Deno.test("RowLog gives back what was added", () => {
  const log = new RowLog();
  const rows = [
    { allRead: false, entries: [entry(0, true, true), entry(1, false, true), entry(131_071, true, false)] },
    { allRead: true, entries: [] },
    { allRead: true, entries: [entry(300, true, true)] },
  ];
  for (const row of rows) log.add(row);
  assertEquals(rows.map((_, index) => log.read(index)), rows);
});

Deno.test("RowLog takes few bytes for neighbouring pages", () => {
  const log = new RowLog();
  log.add({ allRead: false, entries: Array.from({ length: 64 }, (_, at) => entry(at * 9, true, true)) });
  assertEquals(log.toBytes().length, 2 + 64 * 5);
});

Deno.test("RowLog.fromBytes() reads what toBytes() gave", () => {
  const log = new RowLog();
  log.add({ allRead: false, entries: [entry(7, true, false)] });
  assertEquals(RowLog.fromBytes(log.toBytes(), 1, 8).read(0), log.read(0));
});

Deno.test("RowLog.fromBytes() refuses bytes that are cut short, too long, or name a page that is not there", () => {
  const log = new RowLog();
  log.add({ allRead: false, entries: [entry(7, true, false)] });
  const bytes = log.toBytes();
  assertThrows(() => RowLog.fromBytes(bytes.subarray(0, -1), 1, 8), RangeError, "past the end");
  assertThrows(() => RowLog.fromBytes(Uint8Array.of(...bytes, 0), 1, 8), RangeError, "follow the last row");
  assertThrows(() => RowLog.fromBytes(bytes, 1, 7), RangeError, "Page 7 of 7");
});

Deno.test("massCode() keeps masses to 0.02 %", () => {
  for (const mass of [1, 0.5, 0.123456, 1e-3, 3e-7]) assertAlmostEquals(massOf(massCode(mass)) / mass, 1, 2e-4);
});

Deno.test("massCode() of nothing, of too little and of NaN is 0", () => {
  assertEquals([0, 1e-12, NaN].map((mass) => massOf(massCode(mass))), [0, 0, 0]);
});

Deno.test("scoreCode() keeps scores to a thousandth within 32 deviations", () => {
  for (const score of [0, -1.2344, 31.9]) assert(Math.abs(scoreOf(scoreCode(score)) - score) <= 0.0005 + 1e-9);
  assertEquals(scoreOf(scoreCode(99)), 32.767);
});

Deno.test("standardize() gives mean 0 and deviation 1", () => {
  const out = standardize(Float32Array.of(1, 2, 3, 4));
  assertAlmostEquals(out.reduce((sum, score) => sum + score, 0), 0, 1e-6);
  assertAlmostEquals(out.reduce((sum, score) => sum + score ** 2, 0) / 4, 1, 1e-6);
});

Deno.test("standardize() of equal scores, and of scores that are not finite, is 0", () => {
  assertEquals([...standardize(Float32Array.of(5, 5)), ...standardize(Float32Array.of(1, Infinity))], [0, 0, 0, 0]);
});

Deno.test("toRow() joins what was read and what was wanted in the order of pages", () => {
  const mass = Float32Array.of(0.1, 0.2, 0.3, 0.4);
  const row = toRow({ mass, score: undefined, selected: Int32Array.of(0, 3), wanted: Int32Array.of(2, 3) });
  assertEquals(row.entries.map(({ page, selected, wanted }) => [page, selected, wanted]), [
    [0, true, false],
    [2, false, true],
    [3, true, true],
  ]);
});

Deno.test("countShared() leaves out pages that are always read", () => {
  const [wanted, selected] = [Int32Array.of(0, 2, 5, 9), Int32Array.of(0, 1, 5, 8)];
  assertEquals(countShared(wanted, selected, (page) => page === 0), 1);
});
