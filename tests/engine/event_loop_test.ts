import { assert, assertEquals, assertRejects } from "@std/assert";
import { Aborted, eventLoopYield } from "../../engine/event_loop.ts";

/** Longer than the time between pauses. */
const BUSY_MS = 25;

function keepBusy(): void {
  const end = performance.now() + BUSY_MS;
  while (performance.now() < end);
}

Deno.test("A pause of long work lets signals, timers and input in", async () => {
  const seen = new Set<string>();
  const onSignal = (): void => void seen.add("signal");
  Deno.addSignalListener("SIGUSR1", onSignal);
  const { readable, writable } = new TransformStream<string, string>();
  void readable.getReader().read().then(() => seen.add("input"));
  const yieldToEventLoop = eventLoopYield();
  try {
    setTimeout(() => seen.add("timer"), 1);
    Deno.kill(Deno.pid, "SIGUSR1");
    void writable.getWriter().write("x");
    keepBusy();
    await yieldToEventLoop();
    assertEquals([...seen].sort(), ["input", "signal", "timer"]);
  } finally {
    Deno.removeSignalListener("SIGUSR1", onSignal);
  }
});

Deno.test("Work that was aborted ends at the next pause, whether or not it is due", async () => {
  const controller = new AbortController();
  const yieldToEventLoop = eventLoopYield(controller.signal);
  await yieldToEventLoop();
  setTimeout(() => controller.abort(), 1);
  keepBusy();
  const error = await assertRejects(yieldToEventLoop, Aborted);
  assert(error instanceof Aborted);
  await assertRejects(yieldToEventLoop, Aborted);
});
