/** Requests that arrive while others run. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { RequestQueue } from "../../engine/request_queue.ts";
import type { Request } from "../../engine/request.ts";
import type { GenerateRequest } from "../../engine/types.ts";
import { collect, collectBatch, loadFixture, type Outcome, promptIds } from "../support/fixture_model.ts";

const MODEL = "llama-f32";

function request(tokens: number, maxTokens: number): GenerateRequest {
  return { prompt: promptIds(MODEL, tokens), options: { maxTokens } };
}

/** A source whose requests arrive when the test sends them. */
class Sender implements AsyncIterable<GenerateRequest> {
  readonly #sent: IteratorResult<GenerateRequest, undefined>[] = [];
  #wake: () => void = () => {};
  returned = false;

  send(...requests: GenerateRequest[]): this {
    this.#sent.push(...requests.map((value) => ({ done: false as const, value })));
    this.#wake();
    return this;
  }

  end(): this {
    this.#sent.push({ done: true, value: undefined });
    this.#wake();
    return this;
  }

  [Symbol.asyncIterator](): AsyncIterator<GenerateRequest, undefined> {
    return {
      next: async () => {
        while (this.#sent.length === 0) await new Promise<void>((resolve) => this.#wake = resolve);
        return this.#sent.shift()!;
      },
      return: () => {
        this.returned = true;
        return Promise.resolve({ done: true, value: undefined });
      },
    };
  }
}

Deno.test("Engine.generateBatch gives each request that arrives what it gives alone", async () => {
  await using engine = await loadFixture(MODEL);
  const requests = [request(1, 3), request(220, 9), request(600, 4), request(40, 2)];
  const sender = new Sender().send(...requests).end();
  const together = await collectBatch(engine.generateBatch(sender), requests.length);
  const alone: Outcome[] = [];
  for (const { prompt, options } of requests) alone.push(await collect(engine.generate(prompt, options)));
  assertEquals(together, alone);
});

Deno.test("Engine.generateBatch answers a request before the next one arrives", async () => {
  await using engine = await loadFixture(MODEL);
  const sender = new Sender().send(request(5, 3));
  const order: number[] = [];
  for await (const { index, finish } of engine.generateBatch(sender)) {
    order.push(index);
    if (finish && index === 0) sender.send(request(7, 2)).end();
  }
  assertEquals(order, [0, 0, 0, 1, 1]);
});

Deno.test("Engine.generateBatch ends a request once, also if its first token is the last and the next prompt has many chunks", async () => {
  await using engine = await loadFixture(MODEL);
  const ends: number[] = [];
  for await (const piece of engine.generateBatch(new Sender().send(request(20, 1), request(900, 1)).end())) {
    if (piece.finish) ends.push(piece.index);
  }
  assertEquals(ends, [0, 1]);
});

Deno.test("Engine.generateBatch lets a request join others that run", async () => {
  await using engine = await loadFixture(MODEL);
  const sender = new Sender().send(request(5, 60));
  const ends: number[] = [];
  let pieces = 0;
  for await (const { index, finish } of engine.generateBatch(sender)) {
    if (++pieces === 3) sender.send(request(7, 2)).end();
    if (finish) ends.push(index);
  }
  assertEquals(ends, [1, 0]);
});

Deno.test("Engine.generateBatch continues answers while it reads the prompt of a request that arrived", async () => {
  await using engine = await loadFixture(MODEL);
  const sender = new Sender().send(request(5, 300));
  const events: string[] = [];
  const onPrefill = ({ doneTokens }: { doneTokens: number }, index: number): void => {
    if (index === 1) events.push(`read ${doneTokens}`);
  };
  for await (const { index } of engine.generateBatch(sender, { onPrefill })) {
    if (events.length === 0) sender.send(request(1500, 1)).end();
    if (events.at(-1) !== `piece ${index}`) events.push(`piece ${index}`);
  }
  const reads = events.flatMap((event, at) => event.startsWith("read") ? [at] : []);
  assert(reads.length > 1, events.join(", "));
  for (const at of reads.slice(0, -1)) assertEquals(events[at + 1], "piece 0", events.join(", "));
});

Deno.test("Engine.generateBatch throws what its source throws after the requests before it", async () => {
  await using engine = await loadFixture(MODEL);
  const ends: number[] = [];
  async function* source(): AsyncGenerator<GenerateRequest> {
    yield request(5, 3);
    yield await Promise.reject(new Error("The pipe broke"));
  }
  await assertRejects(
    async () => {
      for await (const { index, finish } of engine.generateBatch(source())) if (finish) ends.push(index);
    },
    Error,
    "The pipe broke",
  );
  assertEquals(ends, [0]);
});

Deno.test("Engine.generateBatch ends at its signal while it waits for a request", async () => {
  await using engine = await loadFixture(MODEL);
  const controller = new AbortController();
  const sender = new Sender().send(request(5, 2));
  for await (const { finish } of engine.generateBatch(sender, { signal: controller.signal })) {
    if (finish) setTimeout(() => controller.abort(), 0);
  }
  assertEquals(sender.returned, true);
});

Deno.test("Engine.generateBatch gives the requests that run a last piece at its signal, also one whose prompt is read", async () => {
  await using engine = await loadFixture(MODEL);
  const controller = new AbortController();
  const sender = new Sender().send(request(5, 1000), request(1500, 9));
  const ends: [number, string][] = [];
  const onPrefill = ({ doneTokens }: { doneTokens: number }, index: number): void => {
    if (index === 1 && doneTokens < 1500) controller.abort();
  };
  for await (const { index, finish } of engine.generateBatch(sender, { signal: controller.signal, onPrefill })) {
    if (finish) ends.push([index, finish]);
  }
  assertEquals(ends, [[0, "aborted"], [1, "aborted"]]);
});

Deno.test("Engine.generateBatch leaves its source when its consumer leaves", async () => {
  await using engine = await loadFixture(MODEL);
  const sender = new Sender().send(request(5, 9));
  for await (const _piece of engine.generateBatch(sender)) break;
  assertEquals(sender.returned, true);
});

Deno.test("Engine.generateBatch is free for another run after requests that arrived", async () => {
  await using engine = await loadFixture(MODEL);
  for await (const _piece of engine.generateBatch(new Sender().send(request(5, 2)).end()));
  assertEquals((await collect(engine.generate(promptIds(MODEL, 5), { maxTokens: 2 }))).ids.length, 2);
});

Deno.test("RequestQueue takes no more than 16 requests ahead of the run", async () => {
  let taken = 0;
  async function* source(): AsyncGenerator<Request> {
    for (; taken < 40; taken++) yield {} as Request;
  }
  using queue = new RequestQueue(source());
  const counts: number[] = [];
  for (const rounds of [0, 1, 4]) {
    for (let round = 0; round < rounds; round++) queue.shift();
    await new Promise((resolve) => setTimeout(resolve, 0));
    counts.push(taken);
  }
  assertEquals(counts, [15, 16, 20]);
});
