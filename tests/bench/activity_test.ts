import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { checkActivity } from "../../bench/activity.ts";
import { type Arm, timeArms } from "../../bench/arms.ts";
import { AttentionArms } from "../../bench/attention_arms.ts";
import { AttentionInputs } from "../../bench/attention_case.ts";
import { caseShape } from "../../bench/attention_memory.ts";
import { PeakReader } from "../../bench/peak.ts";
import { planAttention } from "../../bench/attention_plan.ts";
import type { Device } from "../../ffi/device.ts";
import { liveHandles } from "../../ffi/library.ts";
import { openDevice } from "../support/device.ts";
import { tinyLists } from "./tiny.ts";

const sparse = { arm: "sparse", calls: 3, rows: 2, chosenPages: 4 };
const noPrompts = { promptPagesScored: 0, promptPagesAttended: 0, promptPagesVisible: 0, copiesScored: 0 };
const selected = {
  ...noPrompts,
  rowsSelected: 6,
  pagesScored: 60,
  pagesAttended: 24,
  pagesInContext: 60,
  selections: 3,
};

Deno.test("checkActivity() accepts a sparse arm that selected in every call", () => checkActivity(sparse, selected));

Deno.test("checkActivity() refuses a sparse arm that did not select in one call", () => {
  assertThrows(() => checkActivity(sparse, { ...selected, selections: 2 }), Error, "selected pages 2 times");
});

Deno.test("checkActivity() refuses a sparse arm that read more pages than the budget", () => {
  assertThrows(() => checkActivity(sparse, { ...selected, pagesAttended: 25 }), Error, "read 25 pages");
});

Deno.test("checkActivity() refuses a dense arm that selected", () => {
  assertThrows(() => checkActivity({ ...sparse, arm: "dense", chosenPages: undefined }, selected), Error, "dense arm");
});

Deno.test("checkActivity() refuses an arm that read nothing", () => {
  const nothing = { ...noPrompts, rowsSelected: 0, pagesScored: 0, pagesAttended: 0, pagesInContext: 0, selections: 0 };
  assertThrows(() => checkActivity({ ...sparse, chosenPages: undefined }, nothing), Error, "read 0 pages");
});

/** The arms of a small case, on a device that is closed and leaves nothing. */
async function withArms(
  work: (device: Device, inputs: AttentionInputs, arms: Arm[], peak: PeakReader) => Promise<void>,
): Promise<void> {
  {
    using device = openDevice();
    const plan = planAttention(tinyLists);
    const [wanted] = plan.cases;
    if (!wanted) throw new Error("No case was planned");
    const shape = caseShape(wanted, plan, device, 2);
    const inputs = await AttentionInputs.open(device, wanted, shape, 2, () => Promise.resolve());
    using peak = new PeakReader(device);
    await work(device, inputs, new AttentionArms(wanted, plan, inputs, device.describe().records).all(), peak);
  }
  assertEquals(liveHandles(), 0);
}

const timing = { warmups: 0, repetitions: 1 };

Deno.test("timeArms() times arms that do what their name says", async () => {
  await withArms(async (device, inputs, arms, peak) => {
    const { results } = await timeArms(device, inputs.cache, arms, { ...timing, peak });
    assertEquals(results.map(({ seconds }) => seconds.length), arms.map(() => 1));
  });
});

Deno.test("timeArms() fails if a sparse arm never selects", async () => {
  await withArms(async (device, inputs, arms, peak) => {
    const [dense, ...others] = arms as [Arm, ...Arm[]];
    const claimed = others.find(({ name }) => name === "sparse") as Arm;
    const idle = { ...claimed, calls: dense.calls, operation: dense.operation };
    await assertRejects(
      () => timeArms(device, inputs.cache, [idle], { ...timing, peak }),
      Error,
      "selected pages 0 times",
    );
  });
});
