import { Bound } from "./arguments.ts";
import { TemplateError } from "./errors.ts";
import { type Arguments, Callable, equals, given, Tuple, Undefined, type Value } from "./values.ts";

/** What `loop` is in the body of a loop. */
export class LoopState {
  index = 0;
  readonly value: Callable;
  #changed: Value | undefined;

  constructor(
    readonly items: readonly Value[],
    readonly depth: number,
    again: ((next: Value) => Value) | undefined,
  ) {
    const run = again &&
      ((call: Arguments): Value => again(new Bound("loop", call, ["iterable"], 1).value("iterable")!));
    this.value = new Callable("loop", run, (name) => this.#member(name));
  }

  #member(name: string): Value | undefined {
    const { index, items, depth } = this;
    switch (name) {
      case "index":
        return BigInt(index + 1);
      case "index0":
        return BigInt(index);
      case "revindex":
        return BigInt(items.length - index);
      case "revindex0":
        return BigInt(items.length - index - 1);
      case "first":
        return index === 0;
      case "last":
        return index === items.length - 1;
      case "length":
        return BigInt(items.length);
      case "depth":
        return BigInt(depth + 1);
      case "depth0":
        return BigInt(depth);
      case "previtem":
        return given(items[index - 1], new Undefined("the item before the first"));
      case "nextitem":
        return given(items[index + 1], new Undefined("the item behind the last"));
      case "cycle":
        return new Callable("loop.cycle", ({ args }) => {
          if (args.length === 0) throw new TemplateError("loop.cycle gets no items");
          return args[this.index % args.length]!;
        });
      case "changed":
        return new Callable("loop.changed", ({ args }) => {
          const now = new Tuple(args);
          const same = this.#changed !== undefined && equals(this.#changed, now);
          this.#changed = now;
          return !same;
        });
    }
    return undefined;
  }
}
