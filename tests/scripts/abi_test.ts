import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { ABI_VERSION } from "../../ffi/symbols.ts";
import { generate, outdatedFiles } from "../../scripts/gate/abi.ts";
import { parseHeader } from "../../scripts/gate/abi_header.ts";

const HEADER = Deno.readTextFileSync(new URL("../../csrc/include/pagesift.h", import.meta.url));
const SYMBOLS = "ffi/symbols.ts";
const CTYPES = "scripts/studies/pagesift_abi.py";

/** The header with one place changed, which must be there. */
function changed(from: string, to: string): string {
  const header = HEADER.replace(from, to);
  assertEquals(header === HEADER, false, `the header has no "${from}"`);
  return header;
}

Deno.test("the generated tables match the header", async () => {
  assertEquals(await outdatedFiles(HEADER), []);
});

for (
  const [change, from, to, files] of [
    ["another parameter type", "int64_t bytes, ps_buffer **out", "int32_t bytes, ps_buffer **out", [SYMBOLS, CTYPES]],
    ["a new function", "PS_API int32_t ps_abi", "PS_API int32_t ps_new(void);\nPS_API int32_t ps_abi", [
      SYMBOLS,
      CTYPES,
    ]],
    ["a new field", "int32_t num_threads; /* CPU:", "int32_t num_threads; int64_t more; /* CPU:", [SYMBOLS, CTYPES]],
    ["fields in another order", "int64_t kv;\n  int64_t statistics;", "int64_t statistics;\n  int64_t kv;", [
      SYMBOLS,
      CTYPES,
    ]],
    ["another dtype", "PS_I32 = 3", "PS_I32 = 3, PS_I8 = 4", [SYMBOLS, CTYPES]],
    ["another status", "PS_INTERNAL = 6", "PS_INTERNAL = 7", [SYMBOLS, CTYPES]],
    ["another version", `PS_ABI_VERSION ${ABI_VERSION}`, "PS_ABI_VERSION 99", [SYMBOLS, CTYPES]],
    ["another comment", "The bytes of a new buffer are zero", "The bytes of a new buffer are random", [SYMBOLS]],
  ] as const
) {
  Deno.test(`a header with ${change} makes the generated tables out of date`, async () => {
    assertEquals(await outdatedFiles(changed(from, to)), [...files]);
  });
}

Deno.test("parseHeader pads a struct to its widest field", () => {
  const [struct] = parseHeader("typedef struct ps_a { int64_t x; int32_t y; char z[3]; } ps_a;").structs;
  assertEquals([struct?.bytes, struct?.fields.map(({ offset }) => offset)], [16, [0, 8, 12]]);
});

Deno.test("parseHeader refuses a declaration that it cannot parse", () => {
  assertThrows(() => parseHeader("PS_API int32_t ps_a(int32_t (*callback)(void));"), Error, "abi:");
});

Deno.test("an unknown type is refused by name", async () => {
  const header = changed("int64_t bytes, ps_buffer **out", "size_t bytes, ps_buffer **out");
  assertMatch(await generate(header).then(() => "accepted", (error) => error.message), /size_t/);
});
