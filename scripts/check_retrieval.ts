/**
 * Plants facts in a book and asks for each, with every token of question and answer fed through sparse decode one at a time
 * (a prefill would be dense and hide the selection). All digits must be right. Dense runs through the same loop.
 *
 *     deno run -A scripts/check_retrieval.ts TEXT [--context 8192] [--documents 4] [--facts 5] [--budgets 128,256,512] [--lambdas 0.5,1]
 *       [--device auto|cpu|cuda]
 */
import { parseArgs } from "@std/cli/parse-args";
import { fromFileUrl } from "@std/path";
import { type DeviceChoice, deviceLabel } from "../engine/devices.ts";
import { Engine } from "../engine/engine.ts";
import type { PagePolicy } from "../engine/page_policy.ts";
import { Random } from "../engine/random.ts";
import type { SparseOptions } from "../engine/types.ts";
import { print } from "./support/lines.ts";
import { commit, DecodeSession, proseIds } from "./support/session.ts";

/** Words that the seed model's training used (models/default/README.md). */
const ADJECTIVES = "amber brass copper dusty eager frozen gentle hollow iron jolly keen lonely misty noble olive proud"
  .split(" ");
const NOUNS = "falcon harbor lantern meadow mountain orchard palace river shepherd station temple village window garden"
  .split(" ");
const DIGITS = 5;

interface Fact {
  name: string;
  value: string;
  /** Share of the text that stands before it. */
  depth: number;
}

interface Arm {
  label: string;
  sparse: SparseOptions;
  right: number;
}

function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random.nextFloat() * items.length)] as T;
}

function makeFacts(random: Random, count: number): Fact[] {
  const facts = new Map<string, Fact>();
  while (facts.size < count) {
    const name = `${pick(random, ADJECTIVES)} ${pick(random, NOUNS)}`;
    const value = Array.from({ length: DIGITS }, () => Math.floor(random.nextFloat() * 10)).join("");
    facts.set(name, { name, value, depth: (facts.size + random.nextFloat()) / count * 0.95 });
  }
  return [...facts.values()];
}

/** `tokens` tokens of prose with the facts between. */
function plant(engine: Engine, prose: readonly number[], facts: readonly Fact[], tokens: number): number[] {
  const statements = facts.map((fact) => engine.tokenizer.encode(` The code for the ${fact.name} is ${fact.value}.`));
  const room = tokens - statements.reduce((sum, ids) => sum + ids.length, 0);
  const out: number[] = [];
  let taken = 0;
  facts.forEach((fact, index) => {
    const until = Math.floor(fact.depth * room);
    out.push(...prose.slice(taken, until), ...(statements[index] ?? []));
    taken = until;
  });
  return [...out, ...prose.slice(taken, room)];
}

/** Whether the model, asked behind the document, gives the fact's value. */
function ask(session: DecodeSession, fact: Fact, policy: PagePolicy, documentTokens: number): boolean {
  const { tokenizer } = session.engine;
  session.rewind(documentTokens);
  let id = 0;
  for (const asked of tokenizer.encode(`\n\nWhat is the code for the ${fact.name}? The code for the ${fact.name} is`)) {
    id = session.step(asked, policy);
  }
  const answer = [id];
  for (let count = 0; count < DIGITS + 1; count++) answer.push(session.step(answer.at(-1) ?? 0, policy));
  return tokenizer.decode(answer).trim().startsWith(fact.value);
}

function arms(budgets: readonly number[], lambdas: readonly number[]): Arm[] {
  const sparse = lambdas.flatMap((lambda) =>
    budgets.map((budgetTokens) => ({
      label: `unique ${lambda}, budget ${budgetTokens}`,
      sparse: { mode: "on" as const, budgetTokens, lambda },
      right: 0,
    }))
  );
  return [{ label: "dense", sparse: { mode: "off" }, right: 0 }, ...sparse];
}

function numbers(value: unknown, fallback: string): number[] {
  return String(value ?? fallback).split(",").map(Number);
}

async function main(): Promise<void> {
  const flags = parseArgs(Deno.args, {
    string: ["model", "context", "documents", "facts", "budgets", "lambdas", "seed", "device"],
  });
  const [context = 8192] = numbers(flags["context"], "8192");
  const [documents = 4] = numbers(flags["documents"], "4");
  const [factsEach = 5] = numbers(flags["facts"], "5");
  const model = String(flags["model"] ?? fromFileUrl(new URL("../models/default", import.meta.url)));
  await using engine = await Engine.load(model, { device: (flags["device"] ?? "auto") as DeviceChoice });
  const all = arms(numbers(flags["budgets"], "128,256,512"), numbers(flags["lambdas"], "0.5,1"));
  const random = new Random(Number(flags["seed"] ?? 1));
  for (let document = 0; document < documents; document++) {
    const facts = makeFacts(random, factsEach);
    const ids = plant(engine, proseIds(engine, String(flags._[0]), context, document * context * 4), facts, context);
    using session = new DecodeSession(engine, context + 64);
    await session.prefill(ids, session.policy({}));
    for (const arm of all) {
      const policy = session.policy(arm.sparse);
      arm.right += facts.filter((fact) => ask(session, fact, policy, context)).length;
    }
  }
  const total = documents * factsEach;
  print(
    `commit ${Deno.env.get("PAGESIFT_COMMIT") ?? await commit()}, ${
      deviceLabel(engine.device)
    }, context ${context}, ${total} facts of ${DIGITS} digits, page 8, token-by-token decode\n\n| arm | right |\n|---|---|`,
  );
  for (const arm of all) print(`| ${arm.label} | ${arm.right} of ${total} |`);
}

if (import.meta.main) await main();
