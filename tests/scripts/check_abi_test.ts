import { assertEquals, assertStringIncludes } from "@std/assert";
import { compareAbi, parseStructs } from "../../scripts/gate/check_abi.ts";

const HEADER = Deno.readTextFileSync(new URL("../../csrc/include/pagesift.h", import.meta.url));

Deno.test("compareAbi finds no difference between the header and the binding", () => {
  assertEquals(compareAbi(HEADER), []);
});

Deno.test("compareAbi names a function whose parameter has another type", () => {
  const changed = HEADER.replace("int64_t bytes, ps_buffer **out", "int32_t bytes, ps_buffer **out");
  assertStringIncludes(compareAbi(changed).join("\n"), "ps_buffer_create");
});

Deno.test("compareAbi names a function that the binding lacks", () => {
  const changed = HEADER.replace(
    "PS_API int32_t ps_abi_version(void);",
    "PS_API int32_t ps_abi_version(void);\nPS_API int32_t ps_new(void);",
  );
  assertStringIncludes(compareAbi(changed).join("\n"), "ps_new");
});

Deno.test("compareAbi names a struct that grew", () => {
  const changed = HEADER.replace("int32_t num_threads; /* CPU:", "int32_t num_threads, more; int64_t extra; /* CPU:");
  assertStringIncludes(compareAbi(changed).join("\n"), "ps_device_options");
});

Deno.test("parseStructs pads a struct to its widest field", () => {
  assertEquals([...parseStructs("typedef struct ps_a { int64_t x; int32_t y; } ps_a;")], [["ps_a", 16]]);
});
