import { assertEquals } from "@std/assert";
import { reasonOf } from "../../engine/errors.ts";

Deno.test("reasonOf leaves out Deno's advice to grant all permissions", () => {
  const error = new Deno.errors.NotCapable('Requires all access to "/proc/kcore", run again with the --allow-all flag');
  assertEquals(reasonOf(error), 'Requires all access to "/proc/kcore"');
});
