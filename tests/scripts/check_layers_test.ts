/** The check of import arrows finds what it is there for. */
import { assertEquals, assertMatch } from "@std/assert";
import { checkArrows, checkEffects, importsOf, wayToDevice } from "../../scripts/gate/check_layers.ts";

Deno.test("an import from an inner ring of an outer one is a problem", () => {
  const [problem = ""] = checkArrows("engine/session.ts", 'import { run } from "../cli/main.ts";\n');
  assertMatch(problem, /engine\/session\.ts imports cli\/main\.ts/);
});

Deno.test("a type import against the arrows is a problem too", () => {
  assertEquals(checkArrows("ffi/handle.ts", 'import type { Engine } from "../engine/engine.ts";\n').length, 1);
});

Deno.test("an import from an outer ring of an inner one is allowed", () => {
  assertEquals(checkArrows("cli/main.ts", 'import {\n  Engine,\n} from "../engine/engine.ts";\n'), []);
});

Deno.test("static imports, re-exports and dynamic imports all count", () => {
  const text = 'import "./x.ts";\nimport { a } from "./a.ts";\nexport { b } from "../b.ts";\nawait import("./c.ts");\n';
  assertEquals(importsOf("engine/text/one.ts", text, true), [
    "engine/text/x.ts",
    "engine/text/a.ts",
    "engine/b.ts",
    "engine/text/c.ts",
  ]);
});

Deno.test("a module of the engine that prints is a problem", () => {
  assertEquals(checkEffects("engine/session.ts", 'console.log("hello");\n').length, 1);
});

Deno.test("an example in a documentation comment may print", () => {
  assertEquals(checkEffects("engine/session.ts", '/**\n * console.log("hello");\n */\nexport const one = 1;\n'), []);
});

const DEVICE = 'import { openLibrary } from "../ffi/library.ts";\n';

Deno.test("a pure module that reaches ffi/ through another module is found, with the import chain", () => {
  const texts = new Map([
    ["engine/text/one.ts", 'import { two } from "../folder/two.ts";\n'],
    ["engine/folder/two.ts", 'export { three } from "../three.ts";\n'],
    ["engine/three.ts", DEVICE],
  ]);
  const way = "engine/text/one.ts -> engine/folder/two.ts -> engine/three.ts -> ffi/library.ts";
  assertEquals(wayToDevice("engine/text/one.ts", texts), way);
});

Deno.test("a chain of imports that ends in a type import does not reach ffi/", () => {
  const texts = new Map([
    ["engine/text/one.ts", 'import type { three } from "../three.ts";\n'],
    ["engine/three.ts", DEVICE],
  ]);
  assertEquals(wayToDevice("engine/text/one.ts", texts), undefined);
});

Deno.test("circular imports end the search", () => {
  const texts = new Map([
    ["engine/text/one.ts", 'import { two } from "./two.ts";\n'],
    ["engine/text/two.ts", 'import { one } from "./one.ts";\n'],
  ]);
  assertEquals(wayToDevice("engine/text/one.ts", texts), undefined);
});
