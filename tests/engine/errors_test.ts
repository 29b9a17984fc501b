import { assertMatch } from "@std/assert";
import { reasonOf } from "../../engine/errors.ts";

Deno.test("reasonOf gives other advice than Deno, which asks for all permissions", () => {
  const error = new Deno.errors.NotCapable('Requires all access to "/proc/kcore", run again with the --allow-all flag');
  assertMatch(reasonOf(error), /under \/dev, \/proc and \/sys .*; copy it to another folder$/);
});
