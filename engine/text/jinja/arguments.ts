/** Arguments of filters, methods and functions, bound to the names of their parameters. */
import { TemplateError, unsupported } from "./errors.ts";
import { type Arguments, asInteger, asString, isTrue, Undefined, type Value } from "./values.ts";

/** What a call passes, by position or by name. */
export class Bound {
  readonly #values = new Map<string, Value>();

  /** @throws {TemplateError} for arguments that no parameter takes */
  constructor(name: string, { args, kwargs }: Arguments, parameters: readonly string[], required = 0) {
    if (args.length > parameters.length) {
      throw new TemplateError(`${name} takes at most ${parameters.length} arguments`);
    }
    args.forEach((value, index) => this.#values.set(parameters[index]!, value));
    for (const [key, value] of kwargs) {
      if (!parameters.includes(key)) throw new TemplateError(`${name} has no argument "${key}"`);
      if (this.#values.has(key)) throw new TemplateError(`${name} gets the argument "${key}" twice`);
      this.#values.set(key, value);
    }
    const missing = parameters.slice(0, required).find((key) => !this.#values.has(key));
    if (missing !== undefined) throw new TemplateError(`${name} needs the argument "${missing}"`);
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** Undefined where it was not passed. */
  value(name: string): Value | undefined {
    return this.#values.get(name);
  }

  string(name: string, fallback: string): string {
    const value = this.#values.get(name);
    return value === undefined ? fallback : asString(value);
  }

  /** Undefined where it is None or was not passed. */
  optionalString(name: string): string | undefined {
    const value = this.#values.get(name) ?? null;
    return value === null ? undefined : asString(value);
  }

  integer(name: string, fallback: number): number {
    const value = this.#values.get(name);
    return value === undefined ? fallback : asInteger(value);
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.#values.get(name);
    if (value instanceof Undefined) throw value.fail();
    return value === undefined ? fallback : isTrue(value);
  }

  /** @throws {TemplateError} when an argument that is not supported was passed */
  refuse(name: string, ...keys: string[]): void {
    for (const key of keys) if (this.has(key)) throw unsupported(`the argument "${key}" of ${name}`);
  }
}
