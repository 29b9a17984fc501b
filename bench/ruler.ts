/**
 * Tasks after RULER (arXiv 2404.06654), generated from any text: its kinds, wording and scores, with needles of 5 digits and with
 * questions about invented towns.
 */
import { Random } from "../engine/sample/random.ts";
import { DEEPEST, type Fact, makeFacts, makeValue, pick, spread } from "./documents.ts";
import { usageError } from "./lists.ts";
import { type EncodePrompt, fitTrials, type Question, type QuestionedText, type TrialDocument } from "./trials.ts";

export const RULER_TASKS = ["single", "multikey", "multivalue", "multiquery", "vt", "cwe", "fwe", "qa"] as const;
export type RulerTask = (typeof RULER_TASKS)[number];

/** What a text is made from: sentences and different words of the prose, and a fresh generator for every size. */
interface Source {
  sentences: readonly string[];
  words: readonly string[];
  /** Questions about one text, in the tasks that can ask several. */
  questions: number;
  random: Random;
}

/** A sentence to hide, and the share of the text before it. */
interface Statement {
  text: string;
  depth: number;
}

/** Keys, values or queries of the tasks with several. */
const SEVERAL = 4;
/** Variables of a chain: one assignment of a number and 4 hops. */
const CHAIN = 5;
const COMMON_WORDS = 10;
const FREQUENT_WORDS = 3;
/** Towns in a document of questions, each with a fact of every kind. */
const TOWNS = 10;

/** Everything that a task needs to make a text of `units` sentences or words. */
interface Task {
  unit: "sentence" | "word";
  make: (source: Source, units: number) => QuestionedText;
}

const TASKS: Readonly<Record<RulerTask, Task>> = {
  single: { unit: "sentence", make: single },
  multikey: { unit: "sentence", make: multikey },
  multivalue: { unit: "sentence", make: multivalue },
  multiquery: { unit: "sentence", make: multiquery },
  vt: { unit: "sentence", make: variableTracking },
  cwe: { unit: "word", make: commonWords },
  fwe: { unit: "word", make: frequentWords },
  qa: { unit: "sentence", make: questionsWithDistractors },
};

/**
 * A text of at most `lengthTokens` tokens and the questions about it. The same seed asks the same questions.
 *
 * @param text prose of at least `lengthTokens` tokens
 * @throws {PagesiftError} of kind "usage" if the length is too short for the task
 */
export function rulerDocument(
  task: RulerTask,
  encode: EncodePrompt,
  text: string,
  { lengthTokens, questions, seed }: { lengthTokens: number; questions: number; seed: number },
): TrialDocument {
  const [sentences, words] = [sentencesOf(text), wordsOf(text)];
  const { unit, make } = TASKS[task];
  const most = unit === "sentence" ? sentences.length : lengthTokens;
  return fitTrials(
    encode,
    (units) => make({ sentences, words, questions, random: new Random(seed) }, units),
    { task, lengthTokens, most },
  );
}

function single({ sentences, random }: Source, units: number): QuestionedText {
  const facts = makeFacts(random, 1);
  return { context: needles(sentences.slice(0, units), facts), questions: facts.map(askValue) };
}

function multikey({ sentences, questions, random }: Source, units: number): QuestionedText {
  const facts = makeFacts(random, Math.max(SEVERAL, questions));
  return { context: needles(sentences.slice(0, units), facts), questions: spread(facts, questions).map(askValue) };
}

function multivalue({ sentences, random }: Source, units: number): QuestionedText {
  const [{ name }, ...others] = makeFacts(random, SEVERAL) as [Fact, ...Fact[]];
  const facts = [{ name, value: makeValue(random), depth: 0 }, ...others.map((fact) => ({ ...fact, name }))];
  return { context: needles(sentences.slice(0, units), facts), questions: [askValues(name, facts)] };
}

function multiquery({ sentences, random }: Source, units: number): QuestionedText {
  const facts = makeFacts(random, SEVERAL);
  const names = facts.map(({ name }) => name);
  const listed = `${names.slice(0, -1).join(", ")}, and ${names.at(-1)}`;
  return { context: needles(sentences.slice(0, units), facts), questions: [askValues(listed, facts)] };
}

function needles(sentences: readonly string[], facts: readonly Fact[]): string {
  const [what, verb, it] = facts.length === 1
    ? ["A special magic number", "is", "it"]
    : ["Some special magic numbers", "are", "them"];
  const hidden = facts.map(({ name, value, depth }) => ({
    text: `One of the special magic numbers for ${name} is: ${value}.`,
    depth,
  }));
  return `${what} ${verb} hidden within the following text. Make sure to memorize ${it}. I will quiz you about the ` +
    `numbers afterwards.\n${scatter(sentences, hidden)}`;
}

function askValue({ name, value, depth }: Fact): Question {
  return {
    question: `What is the special magic number for ${name} mentioned in the provided text?`,
    answerStart: `The special magic number for ${name} mentioned in the provided text is`,
    ...{ accepted: [value], match: "all", answerTokens: 32, depth },
  };
}

function askValues(names: string, facts: readonly Fact[]): Question {
  return {
    question: `What are all the special magic numbers for ${names} mentioned in the provided text?`,
    answerStart: `The special magic numbers for ${names} mentioned in the provided text are`,
    ...{ accepted: facts.map(({ value }) => value), match: "all", answerTokens: 96 },
  };
}

/** One solved example of a few sentences comes first. */
function variableTracking({ sentences, random }: Source, units: number): QuestionedText {
  const example = chainOf(sentences.slice(0, CHAIN), random);
  const { context, question, answerStart, accepted } = chainOf(sentences.slice(0, units), random);
  const solved = `${example.context}\n${example.question} ${example.answerStart} ${example.accepted.join(", ")}.`;
  return {
    context: `${solved}\n\n${context}`,
    questions: [{ question, answerStart, accepted, match: "all", answerTokens: 48 }],
  };
}

function chainOf(
  sentences: readonly string[],
  random: Random,
): Pick<Question, "question" | "answerStart" | "accepted"> & { context: string } {
  const value = makeValue(random);
  const names = distinct(CHAIN, () => letters(random, 5).toUpperCase());
  const hidden = names.map((name, index) => ({
    text: `VAR ${name} = ${index === 0 ? value : `VAR ${names[index - 1]}`}.`,
    depth: (index + random.nextFloat()) / CHAIN * DEEPEST,
  }));
  return {
    context: "Memorize and track the chain of variable assignment hidden in the following text.\n" +
      scatter(sentences, hidden),
    question: `Question: Find all variables that are assigned the value ${value} in the text above.`,
    answerStart: "Answer: According to the chain of variable assignment in the text above, " +
      `${CHAIN} variables are assigned the value ${value}, they are:`,
    accepted: names,
  };
}

/** Common words appear 10 times as often as the others, which appear 3 times or, in a short list, once. */
function commonWords({ words, random }: Source, units: number): QuestionedText {
  const pool = shuffled(random, words);
  const [common, others] = [pool.slice(0, COMMON_WORDS), pool.slice(COMMON_WORDS)];
  if (others.length < COMMON_WORDS) {
    throw usageError("The text has fewer than 20 different words, so --task cwe has none to list");
  }
  const inShort = 10 * COMMON_WORDS;
  const repeats = units < 4 * inShort ? 1 : Math.max(3, Math.ceil(units / (others.length + inShort)));
  const uncommon = others.slice(0, Math.max(COMMON_WORDS, Math.floor(units / repeats) - inShort));
  const entries = shuffled(random, [
    ...common.flatMap((word) => new Array<string>(10 * repeats).fill(word)),
    ...uncommon.flatMap((word) => new Array<string>(repeats).fill(word)),
  ]);
  return {
    context:
      "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones " +
      `that appear most often.\n${entries.map((word, index) => `${index + 1}. ${word}`).join(" ")}`,
    questions: [{
      question: `Question: What are the ${COMMON_WORDS} most common words in the above list?`,
      answerStart: `Answer: The top ${COMMON_WORDS} words that appear most often in the list are:`,
      ...{ accepted: common, match: "all", answerTokens: 96 },
    }],
  };
}

/** Coded words with frequencies after Zipf with exponent 2; dots have rank 1, and the next three words are the answer. */
function frequentWords({ random }: Source, units: number): QuestionedText {
  const share = 6 / Math.PI ** 2; // 1 / zeta(2)
  const counts: number[] = [];
  for (let total = 0; total < units || counts.length <= FREQUENT_WORDS;) {
    const rank = counts.length + 1;
    const count = Math.max(
      rank <= FREQUENT_WORDS + 1 ? FREQUENT_WORDS + 3 - rank : 1,
      Math.round(units * share / rank ** 2),
    );
    counts.push(count);
    total += count;
  }
  const coded = ["...", ...distinct(counts.length - 1, () => letters(random, 6))];
  const text = shuffled(random, coded.flatMap((word, index) => new Array<string>(counts[index] ?? 0).fill(word)));
  return {
    context:
      "Read the following coded text and track the frequency of each coded word. Find the three most frequently " +
      `appeared coded words.\n${text.join(" ")}`,
    questions: [{
      question: "Question: Do not provide any explanation. Please ignore the dots '...'. What are the three most " +
        "frequently appeared words in the above coded text?",
      answerStart: "Answer: According to the coded text above, the three most frequently appeared words are:",
      ...{ accepted: coded.slice(1, 1 + FREQUENT_WORDS), match: "all", answerTokens: 48 },
    }],
  };
}

/** A kind of fact about a town: the statement in the text, and a question in other words. */
interface TownFact {
  values: readonly string[];
  state: (town: string, value: string) => string;
  ask: (town: string) => string;
}

const TOWN_FACTS: readonly TownFact[] = [
  {
    values: "violins,candles,pottery,umbrellas,carpets,clocks,kites,barrels,lace,saddles".split(","),
    state: (town, value) => `The workshops of ${town} have made ${value} for three hundred years.`,
    ask: (town) => `Which goods are produced in ${town}?`,
  },
  {
    values: "ferry,tram,balloon,sledge,canoe,mule,bicycle,funicular,steamer,wagon".split(","),
    state: (town, value) => `Since the bridge fell, people have reached ${town} by ${value}.`,
    ask: (town) => `How do visitors travel to ${town}?`,
  },
  {
    values: "turquoise,crimson,yellow,purple,white,orange,brown,scarlet,black,pink".split(","),
    state: (town, value) => `Last spring the council of ${town} had its town hall painted ${value}.`,
    ask: (town) => `What colour is the town hall of ${town}?`,
  },
];
const TOWN_STARTS = "Bram Cald Dun Fen Gal Hal Ker Lor Mar Nor Pel Rav Sel Tor Ul Ver".split(" ");
const TOWN_ENDS = "bury field ford mouth stead wick ton dale".split(" ");

/** Every town has a fact of each kind, and no two share a value, so all other statements are distractors. */
function questionsWithDistractors({ sentences, questions, random }: Source, units: number): QuestionedText {
  const towns = distinct(TOWNS, () => pick(random, TOWN_STARTS) + pick(random, TOWN_ENDS));
  const facts = shuffled(
    random,
    TOWN_FACTS.flatMap((kind) => {
      const values = shuffled(random, kind.values);
      return towns.map((town, index) => ({ kind, town, value: values[index] ?? "" }));
    }),
  ).map((fact, index, all) => ({ ...fact, depth: (index + random.nextFloat()) / all.length * DEEPEST }));
  const hidden = facts.map(({ kind, town, value, depth }) => ({ text: kind.state(town, value), depth }));
  const asked = spread(facts, questions);
  return {
    context: `Answer the question based on the following text.\n${scatter(sentences.slice(0, units), hidden)}`,
    questions: asked.map(({ kind, town, value, depth }) => ({
      question: `Only give me the answer and do not output any other words.\nQuestion: ${kind.ask(town)}`,
      answerStart: "Answer:",
      ...{ accepted: [value], match: "any", answerTokens: 32, depth },
    })),
  };
}

/** The sentences with the statements between them, in ascending order of depth. */
function scatter(sentences: readonly string[], statements: readonly Statement[]): string {
  const parts: string[] = [];
  let taken = 0;
  for (const { text, depth } of statements) {
    const until = Math.floor(depth * sentences.length);
    parts.push(...sentences.slice(taken, until), text);
    taken = until;
  }
  return [...parts, ...sentences.slice(taken)].join(" ");
}

/** Sentences of at most 400 characters; longer ones, and text without full stops, are divided between words. */
function sentencesOf(text: string): string[] {
  const joined = text.replaceAll(/\s+/g, " ");
  return joined.match(/\S.{0,399}?[.!?]["'”’)]*(?= |$)|\S.{0,399}(?= |$)|\S{1,400}/g) ?? [];
}

/** Different words of 5 letters or more, in lower case. */
function wordsOf(text: string): string[] {
  return [...new Set(text.toLowerCase().match(/(?<![\p{L}'’])\p{L}{5,}(?![\p{L}'’])/gu))];
}

function letters(random: Random, count: number): string {
  return Array.from({ length: count }, () => pick(random, [..."abcdefghijklmnopqrstuvwxyz"])).join("");
}

/** `count` different strings. */
function distinct(count: number, draw: () => string): string[] {
  const found = new Set<string>();
  while (found.size < count) found.add(draw());
  return [...found];
}

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const out = [...items];
  for (let last = out.length - 1; last > 0; last--) {
    const other = Math.floor(random.nextFloat() * (last + 1));
    [out[last], out[other]] = [out[other] as T, out[last] as T];
  }
  return out;
}
