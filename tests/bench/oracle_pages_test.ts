/**
 * The oracles of `bench` and `inspect-pages` choose the pages that the one of `train.evaluate` chooses: `tests/train/test_oracle.py` checks
 * its own against the same file.
 */
import { assertEquals } from "@std/assert";
import { oraclePages } from "../../bench/oracle.ts";
import { groupMasses } from "../../bench/page_mass.ts";
import { Random } from "../../engine/sample/random.ts";
import { pageMass } from "../../ffi/page_mass.ts";
import { averageGroups } from "../../inspect/row_math.ts";
import { deviceTest } from "../support/device.ts";
import { buildPaged } from "../support/paged.ts";
import { readFixtureTensors } from "../support/safetensors.ts";

const FIXTURES = new URL("../fixtures/", import.meta.url);
const EXPECTED: Record<string, number[][]> = JSON.parse(Deno.readTextFileSync(new URL("oracle.json", FIXTURES)));

for (const [name, pages] of Object.entries(EXPECTED)) {
  deviceTest(`the oracle's pages of the fixture "${name}" are those of the shared file`, (device) => {
    const facts = JSON.parse(Deno.readTextFileSync(new URL(`unique/${name}.json`, FIXTURES)));
    const { q, k, v } = readFixtureTensors(new URL(`unique/${name}.safetensors`, FIXTURES));
    const [numQueryHeads, numKvHeads]: [number, number] = [facts.num_query_heads, facts.num_kv_heads];
    const shape = {
      dtype: "f32",
      pageSize: facts.page_size,
      numQueryHeads,
      numKvHeads,
      headDim: facts.head_dim,
    } as const;
    const { cache, sequences } = buildPaged(device, shape, [{ keys: k!, values: v! }], new Random(1));
    const query = device.upload(q!, [1, numQueryHeads, shape.headDim]);
    const columns = cache.shape.maxPagesPerSequence;
    const mass = device.createTensor("f32", [1, numQueryHeads, columns]);
    const numPages = Math.ceil(facts.n / shape.pageSize);
    const rule = {
      budgetPages: facts.budget_tokens / shape.pageSize,
      sinkPages: facts.sink_pages,
      recentPages: facts.recent_pages,
    };
    const benched = groupMasses(cache, { layer: 0, q: query, sequences, mass, numPages });
    assertEquals(benched.map((row) => oraclePages(row, rule)), pages);

    pageMass(cache, 0, query, sequences, mass);
    const inspected = averageGroups(mass.readFloats(), numKvHeads, numQueryHeads / numKvHeads, columns);
    const rows = pages.map((_, head) => Float64Array.from(inspected.slice(head * columns, head * columns + numPages)));
    assertEquals(rows.map((row) => oraclePages(row, rule)), pages);
  });
}
