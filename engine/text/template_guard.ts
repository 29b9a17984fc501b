import { type Environment, Interpreter } from "@huggingface/jinja";

/** What one rendering may cost. */
export interface TemplateLimits {
  /** Characters of any one value, on top of those of the messages. */
  maxCharacters: number;
  maxMilliseconds: number;
}

/** Room for any real template: they take milliseconds and add a few kilobytes. */
export const DEFAULT_TEMPLATE_LIMITS: TemplateLimits = { maxCharacters: 8 << 20, maxMilliseconds: 5000 };

type Node = Parameters<Interpreter["evaluate"]>[0];
type Value = ReturnType<Interpreter["evaluate"]>;

/** What all values of one rendering may sum to, in units of the limit on one. */
const TOTAL_FACTOR = 64;
/** An entry of a list or an object, counted in characters. */
const ENTRY_CHARACTERS = 16;
/** Nodes that name a value which exists already. */
const ALIASES = new Set(["Identifier", "MemberExpression", "StringLiteral"]);

/**
 * Runs a template that may be hostile. Every node passes `evaluate`, which checks the time, the size of the value and the
 * sum of all sizes. What happens inside one node is bounded by the sizes of its operands, and by the longest string that
 * the JavaScript engine builds (512 MiB).
 */
export class GuardedInterpreter extends Interpreter {
  readonly #deadline: number;
  readonly #limits: TemplateLimits;
  readonly #maxSize: number;
  #totalSize = 0;
  /** Sizes of lists and objects, which never change once built. */
  readonly #sizes = new WeakMap<Value, number>();

  /** `inputLength` is the number of characters that the messages have. */
  constructor(environment: Environment, limits: TemplateLimits, inputLength: number) {
    super(environment);
    this.#limits = limits;
    this.#maxSize = limits.maxCharacters + inputLength;
    this.#deadline = performance.now() + limits.maxMilliseconds;
  }

  /** The text of `program`; throws a plain error when a limit is exceeded. */
  render(program: Parameters<Interpreter["run"]>[0]): string {
    return String(this.run(program).value);
  }

  override evaluate(node: Node, environment: Environment): Value {
    if (performance.now() > this.#deadline) {
      throw new Error(`it runs for more than ${this.#limits.maxMilliseconds} ms`);
    }
    const value = super.evaluate(node, environment);
    const size = this.#sizeOf(value);
    if (size > this.#maxSize) throw new Error(`it builds a value of more than ${this.#maxSize} characters`);
    if (node !== undefined && !ALIASES.has(node.type)) this.#count(typeof value.value === "string" ? size : 0);
    return value;
  }

  #count(size: number): void {
    this.#totalSize += size;
    if (this.#totalSize > TOTAL_FACTOR * this.#maxSize) throw new Error("it builds too many values");
  }

  /** Characters that the value has once it becomes text, at least. */
  #sizeOf(value: Value): number {
    if (typeof value.value === "string") return value.value.length;
    if (Array.isArray(value.value)) return this.#sizeOfImmutable(value, value.value);
    if (!(value.value instanceof Map)) return 1;
    // A namespace alone can change later, so its size is not kept.
    if (value.type === "NamespaceValue") return this.#sizeOfEntries([...value.value.values()]);
    return this.#sizeOfImmutable(value, [...value.value.values()]);
  }

  #sizeOfImmutable(value: Value, entries: readonly Value[]): number {
    const known = this.#sizes.get(value);
    if (known !== undefined) return known;
    this.#count(entries.length * ENTRY_CHARACTERS);
    const size = this.#sizeOfEntries(entries);
    this.#sizes.set(value, size);
    return size;
  }

  #sizeOfEntries(entries: readonly Value[]): number {
    let size = entries.length * ENTRY_CHARACTERS;
    for (const entry of entries) {
      // Inside another value a namespace could grow unseen, or hold itself.
      if (entry.type === "NamespaceValue") throw new Error("it puts a namespace into another value");
      size += this.#sizeOf(entry);
      if (size > this.#maxSize) break;
    }
    return size;
  }
}
