import { assertEquals } from "@std/assert";
import { describeSampling, withSamplingDefaults } from "../../../engine/sample/sampling_defaults.ts";

const DEFAULTS = { temperature: 0.6, topK: 20, repeatPenalty: 1.05 };

Deno.test("withSamplingDefaults takes what the options leave out from the model", () => {
  assertEquals(withSamplingDefaults(DEFAULTS, { topK: 5, minP: 0.1 }), { ...DEFAULTS, topK: 5, minP: 0.1 });
});

Deno.test("withSamplingDefaults takes nothing from the model beside a temperature of 0", () => {
  assertEquals(withSamplingDefaults(DEFAULTS, { temperature: 0, seed: 1 }), { temperature: 0, seed: 1 });
});

Deno.test("describeSampling leaves out what is off", () => {
  const all = { temperature: 0.6, topK: 20, topP: 0.95, minP: 0.05, repeatPenalty: 1.05 };
  assertEquals(describeSampling(all), "temperature 0.6, top-k 20, top-p 0.95, min-p 0.05, repeat penalty 1.05");
  assertEquals(describeSampling({ topK: 0, topP: 1, minP: 0, repeatPenalty: 1 }), "temperature 0");
});
