import { assertEquals, assertStringIncludes } from "@std/assert";
import { fallbackNotice } from "../../engine/devices.ts";
import { anyExists, hasNvidiaGpu } from "../../ffi/nvidia.ts";

Deno.test("fallbackNotice warns where there is a GPU that CUDA cannot use", () => {
  const { level, text } = fallbackNotice("The CUDA library is not built", true);
  assertEquals(level, "warning");
  assertStringIncludes(text, "The CUDA library is not built; this machine has an NVIDIA GPU");
});

Deno.test("fallbackNotice only informs where there is no GPU", () => {
  assertEquals(fallbackNotice("No driver", false), { level: "info", text: "No driver; using the CPU" });
});

for (const hidden of ["-1", ""]) {
  Deno.test(`hasNvidiaGpu takes a GPU hidden by CUDA_VISIBLE_DEVICES="${hidden}" for none`, () => {
    const before = Deno.env.get("CUDA_VISIBLE_DEVICES");
    Deno.env.set("CUDA_VISIBLE_DEVICES", hidden);
    try {
      assertEquals(hasNvidiaGpu(), false);
    } finally {
      if (before === undefined) Deno.env.delete("CUDA_VISIBLE_DEVICES");
      else Deno.env.set("CUDA_VISIBLE_DEVICES", before);
    }
  });
}

Deno.test({
  name: "anyExists finds devices and files of /proc with the permissions of the program",
  ignore: Deno.build.os !== "linux",
  permissions: { ffi: true },
  fn: () => {
    assertEquals([anyExists(["/nowhere", "/dev/zero"]), anyExists(["/proc/self/status"])], [true, true]);
    assertEquals(anyExists(["/nowhere", "/dev/nowhere"]), false);
  },
});
