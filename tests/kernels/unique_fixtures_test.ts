/** The fixture cases of `unique_reference.py`: page sets exactly, floats to 1e-4. */
import { assertEquals } from "@std/assert";
import { Random } from "../../engine/sample/random.ts";
import type { CacheField } from "../../ffi/kv_cache.ts";
import { SCORERS } from "../reference/page_score.ts";
import { assertIndexSetsEqual, assertNumbersClose } from "../support/compare.ts";
import { deviceTest } from "../support/device.ts";
import { buildPaged, type Paged, type PagedShape } from "../support/paged.ts";
import { attend, scoreRows, scoreTensor, select, selectionRows, uploadSelection } from "../support/paged_ops.ts";
import { readFixtureTensors, type Tensors } from "../support/safetensors.ts";

const FOLDER = new URL("../fixtures/unique/", import.meta.url);
const TOLERANCE = { relative: 1e-4 };
/** Weights of the spread that the reference uses and the engine does not. */
const LAMBDA: Partial<Record<(typeof SCORERS)[number], number>> = { diag: 4 };

interface Case {
  n: number;
  num_query_heads: number;
  num_kv_heads: number;
  head_dim: number;
  page_size: number;
  budget_tokens: number;
  sink_pages: number;
  recent_pages: number;
  selected: Record<(typeof SCORERS)[number], number[][]>;
}

/** One fixture: its parameters and its tensors. */
interface Fixture {
  parameters: Case;
  tensors: Tensors;
  shape: PagedShape;
}

function readFixture(name: string): Fixture {
  const parameters: Case = JSON.parse(Deno.readTextFileSync(new URL(`${name}.json`, FOLDER)));
  return {
    parameters,
    tensors: readFixtureTensors(new URL(`${name}.safetensors`, FOLDER)),
    shape: {
      dtype: "f32",
      pageSize: parameters.page_size,
      numQueryHeads: parameters.num_query_heads,
      numKvHeads: parameters.num_kv_heads,
      headDim: parameters.head_dim,
    },
  };
}

function fixtureTest(name: string, what: string, body: (fixture: Fixture, paged: Paged) => void): void {
  deviceTest(`${what} of the fixture "${name}"`, (device) => {
    const fixture = readFixture(name);
    const part = { keys: fixture.tensors.k!, values: fixture.tensors.v! };
    body(fixture, buildPaged(device, fixture.shape, [part], new Random(1)));
  });
}

function assertStatistic({ tensors, shape }: Fixture, paged: Paged, field: CacheField): void {
  const pages = paged.tables[0]!.map((page) => Array.from(paged.cache.readPage(0, page, field)));
  const size = field === "std" ? [shape.numKvHeads] : [shape.numKvHeads, shape.headDim];
  assertNumbersClose(pages.flat(), tensors[field]!, [pages.length, ...size], TOLERANCE);
}

const NAMES = Array.from(Deno.readDirSync(FOLDER), (entry) => entry.name)
  .filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5)).sort();

Deno.test("unique fixtures are all there", () => assertEquals(NAMES.length, 8));

for (const name of NAMES) {
  fixtureTest(name, "append keeps the page statistics", (fixture, paged) => {
    for (const field of ["mean", "std", "var"] as const) assertStatistic(fixture, paged, field);
  });

  fixtureTest(name, "attend without a selection gives the dense output", ({ tensors, shape }, paged) => {
    const out = attend(paged, tensors.q!);
    assertNumbersClose(out, tensors.dense_out!, [shape.numQueryHeads, shape.headDim], TOLERANCE);
  });

  for (const scorer of SCORERS) {
    fixtureTest(name, `scorePages gives the ${scorer} scores`, ({ tensors, shape }, paged) => {
      const rows = scoreRows(paged, scoreTensor(paged, tensors.q!, scorer, LAMBDA[scorer]));
      const numbers = rows.flatMap((row) => Array.from(row));
      assertNumbersClose(numbers, tensors[`${scorer}.scores`]!, [shape.numKvHeads, rows[0]!.length], TOLERANCE);
    });

    fixtureTest(name, `selectPages takes the ${scorer} pages`, ({ tensors, parameters }, paged) => {
      const selection = select(paged, scoreTensor(paged, tensors.q!, scorer, LAMBDA[scorer]), {
        k: Math.floor(parameters.budget_tokens / parameters.page_size),
        sinkPages: parameters.sink_pages,
        recentPages: parameters.recent_pages,
      });
      assertIndexSetsEqual(selectionRows(selection), parameters.selected[scorer]);
    });

    fixtureTest(name, `attend over the ${scorer} pages gives the output`, ({ tensors, shape, parameters }, paged) => {
      const out = attend(paged, tensors.q!, { selection: uploadSelection(paged, parameters.selected[scorer]) });
      assertNumbersClose(out, tensors[`${scorer}.out`]!, [shape.numQueryHeads, shape.headDim], TOLERANCE);
    });
  }
}
