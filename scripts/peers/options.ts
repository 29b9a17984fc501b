/** Options of the scripts that run llama.cpp. */
import { parseArgs } from "@std/cli/parse-args";
import { fromFileUrl, join } from "@std/path";
import type { DeviceChoice } from "../../engine/devices.ts";
import { isGgufName } from "../../engine/hub/gguf_files.ts";
import { log } from "../output.ts";
import { ROOT } from "../release/native_library.ts";
import { convertGguf } from "./convert_gguf.ts";
import type { ContextOptions } from "./llama_cpp/shim.ts";

/** Tokens per prefill batch, theirs and ours. */
export const BATCH_TOKENS = 512;

/** The parsed command line. */
export interface PeerOptions {
  model: string;
  device: DeviceChoice;
  threads: number;
  depths: number[];
  decodeTokens: number;
  prompts: number[];
  repetitions: number;
  budgetTokens: number;
  text: string | undefined;
  gguf: string | undefined;
  variants: Pick<ContextOptions, "kv" | "flash">[];
  flags: Record<string, unknown>;
}

function numbers(text: unknown, fallback: string): number[] {
  const values = String(text ?? fallback).split(",").filter((part) => part !== "").map(Number);
  const wrong = values.find((value) => !Number.isSafeInteger(value) || value < 1);
  if (wrong !== undefined) throw new Error(`"${text}" is not a list of whole numbers from 1`);
  return values;
}

/** `f16:on` */
function variant(text: string): Pick<ContextOptions, "kv" | "flash"> {
  const [, kv = "", flash] = text.match(/^(f16|bf16|f32):(on|off)$/) ?? [];
  if (!flash) {
    throw new Error(`Variant "${text}" is unknown; expected f16, bf16 or f32, then :on or :off for flash attention`);
  }
  return { kv: kv.toUpperCase() as ContextOptions["kv"], flash: flash === "on" };
}

/** Parses the command line. @throws {Error} if it is invalid */
export function readOptions(args: readonly string[], defaults: { depths: string; variants: string }): PeerOptions {
  const names = [
    "model",
    "device",
    "threads",
    "depths",
    "tokens",
    "prompts",
    "repeats",
    "budget",
    "text",
    "gguf",
    "variants",
  ];
  const flags = parseArgs([...args], { string: names, boolean: ["all", "widen"] });
  const text = (name: string): string | undefined => flags[name] === undefined ? undefined : String(flags[name]);
  return {
    model: text("model") ?? fromFileUrl(new URL("../../models/default", import.meta.url)),
    device: (text("device") ?? "cpu") as DeviceChoice,
    threads: numbers(flags["threads"], String(navigator.hardwareConcurrency))[0] ?? 1,
    depths: numbers(flags["depths"], defaults.depths).toSorted((a, b) => a - b),
    decodeTokens: numbers(flags["tokens"], "32")[0] ?? 32,
    prompts: numbers(flags["prompts"], "512"),
    repetitions: numbers(flags["repeats"], "7")[0] ?? 7,
    budgetTokens: numbers(flags["budget"], "512")[0] ?? 512,
    text: text("text"),
    gguf: text("gguf"),
    variants: (text("variants") ?? defaults.variants).split(",").map(variant),
    flags,
  };
}

/** Tokens that the deepest repetition requires. */
export function tokensNeeded({ depths, prompts, decodeTokens }: PeerOptions): number {
  return Math.max(...depths.map((depth) => depth + decodeTokens + 1), ...prompts);
}

/** The named GGUF file, or one converted from the model. */
export async function ggufFor({ gguf, model, flags }: PeerOptions): Promise<string> {
  if (gguf !== undefined) return gguf;
  if (isGgufName(model)) return model;
  const folder = join(ROOT, "build", "peers");
  Deno.mkdirSync(folder, { recursive: true });
  const path = join(folder, "model.gguf");
  await convertGguf(model, path, { widen: flags["widen"] === true });
  return path;
}

/** Runs a script and reports an error in one line instead of a stack trace. */
export async function runScript(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    log(error instanceof Error ? error.message : String(error));
    Deno.exit(1);
  }
}
