import { MAX_BATCH } from "../../engine/request.ts";
import { shapeOptions } from "./bench.ts";
import { commonOptions } from "./common.ts";
import { contextOption, sparseOptions } from "./generate.ts";
import { deviceOptions, devicesOption, modelOptions } from "./model.ts";
import { choiceOption, countOption, switchOption, type Values } from "./option.ts";

const { model, adapter, revision, offline, kvType } = modelOptions;
// Verification is about what steps compute, not about what they need.
const { verify: _verify, verifyLimit: _verifyLimit, ...pageOptions } = sparseOptions;

/** The option table of `plan`. */
export const planOptions = {
  model,
  adapter,
  ctxSize: contextOption,
  parallel: countOption({
    flags: ["--parallel"],
    group: "Model and device",
    range: { min: 1, max: MAX_BATCH },
    fallback: 1,
    help: "Sequences that decode together, each of the whole context",
  }),
  kvType,
  ...shapeOptions,
  ...deviceOptions,
  ...devicesOption,
  revision,
  offline,
  ...pageOptions,
  measure: switchOption({
    flags: ["--measure"],
    group: "Output and messages",
    help: "Measure the memory bandwidth of the device for two seconds, and predict the speed of steps from it",
  }),
  output: choiceOption({
    flags: ["-o", "--output"],
    group: "Output and messages",
    choices: ["text", "json"],
    fallback: "text",
    help: "Format of the plan on stdout",
  }),
  ...commonOptions,
};

export type PlanFlags = Values<typeof planOptions>;
