/** `%` formatting and `str.format`, the plain part of both. */
import { TemplateError, unsupported } from "./errors.ts";
import { type Arguments, asNumber, Dict, repr, toText, Tuple, typeName, type Value } from "./values.ts";

/** `text % value`: `%s %r %d %i %x %X %o %f %e %%` with flags, width and precision. */
export function percentFormat(text: string, value: Value): string {
  const positional = value instanceof Tuple ? value.items : [value];
  let next = 0;
  const out = text.replace(
    /%(?:\(([^)]*)\))?([-+ 0#]*)(\*|\d*)(?:\.(\*|\d*))?([hlL]?)([\s\S]?)/g,
    (
      whole,
      key: string | undefined,
      flags: string,
      width: string,
      precision: string | undefined,
      _size,
      letter: string,
    ) => {
      if (letter === "%" && whole === "%%") return "%";
      if (
        width === "*" || precision === "*" || flags.includes("#") || width.length > 4 || (precision?.length ?? 0) > 2
      ) {
        throw unsupported(`the format "${whole}"`);
      }
      let argument: Value | undefined;
      if (key !== undefined) {
        if (!(value instanceof Dict)) throw new TemplateError(`the format "${whole}" needs a dictionary`);
        argument = value.get(key);
      } else argument = positional[next++];
      if (argument === undefined) throw new TemplateError(`the format "${whole}" has no value`);
      const { sign, digits } = converted(
        whole,
        letter,
        argument,
        precision === undefined ? undefined : Number(precision),
      );
      const shownSign = sign ||
        (flags.includes("+") && "dif".includes(letter)
          ? "+"
          : flags.includes(" ") && "dif".includes(letter)
          ? " "
          : "");
      const size = Number(width);
      if (flags.includes("-")) return (shownSign + digits).padEnd(size);
      const zeros = flags.includes("0") && !"sr".includes(letter);
      return zeros ? shownSign + digits.padStart(size - shownSign.length, "0") : (shownSign + digits).padStart(size);
    },
  );
  const unused = next < positional.length && !(value instanceof Dict && next === 0);
  if (unused) throw new TemplateError("a format has more values than places");
  return out;
}

function converted(
  whole: string,
  letter: string,
  value: Value,
  precision: number | undefined,
): { sign: string; digits: string } {
  if (letter === "s" || letter === "r") {
    const text = letter === "s" ? toText(value) : repr(value);
    return { sign: "", digits: precision === undefined ? text : [...text].slice(0, precision).join("") };
  }
  const number = asNumber(value);
  if (number === undefined) throw new TemplateError(`the format "${whole}" gets ${typeName(value)}`);
  const sign = number < 0 || Object.is(number, -0) ? "-" : "";
  if ("di".includes(letter) && letter !== "") {
    const whole = typeof number === "bigint" ? number : truncated(number);
    return { sign: whole < 0n ? "-" : "", digits: String(whole < 0n ? -whole : whole) };
  }
  if ("xXo".includes(letter) && letter !== "" && typeof number === "bigint") {
    const digits = (number < 0n ? -number : number).toString(letter === "o" ? 8 : 16);
    return { sign, digits: letter === "X" ? digits.toUpperCase() : digits };
  }
  if (letter === "f" || letter === "F") {
    const magnitude = Math.abs(Number(number));
    if (!Number.isFinite(magnitude) || magnitude >= 1e15) {
      throw unsupported(`the format "${whole}" of a number so large`);
    }
    return { sign, digits: roundHalfEven(magnitude, precision ?? 6) };
  }
  throw unsupported(`the format "${whole}"`);
}

function truncated(value: number): bigint {
  if (!Number.isFinite(value)) throw new TemplateError("a number without end cannot be an integer");
  return BigInt(Math.trunc(value));
}

/** The decimal digits of a finite number of at least 0, below 1e15, rounded as Python rounds: exactly, ties to even. */
export function roundHalfEven(value: number, digits: number): string {
  // value = scaled / 2 ** shift, exactly.
  let [scaled, shift] = [value, 0n];
  while (!Number.isInteger(scaled)) [scaled, shift] = [scaled * 2, shift + 1n];
  const numerator = BigInt(scaled) * 10n ** BigInt(digits);
  const divisor = 1n << shift;
  let quotient = numerator / divisor;
  const twice = 2n * (numerator % divisor);
  if (twice > divisor || (twice === divisor && quotient % 2n === 1n)) quotient++;
  const text = String(quotient).padStart(digits + 1, "0");
  return digits === 0 ? text : `${text.slice(0, -digits)}.${text.slice(-digits)}`;
}

/** `text.format(...)` with plain fields. */
export function braceFormat(text: string, { args, kwargs }: Arguments): string {
  let next = 0;
  return text.replace(/\{\{|\}\}|\{([^{}]*)\}|[{}]/g, (whole, field: string | undefined) => {
    if (whole === "{{" || whole === "}}") return whole[0]!;
    if (field === undefined) throw new TemplateError("a format has a single brace");
    if (!/^\w*$/.test(field)) throw unsupported(`the format field "${whole}"`);
    const value = field === "" ? args[next++] : /^\d+$/.test(field) ? args[Number(field)] : kwargs.get(field);
    if (value === undefined) throw new TemplateError(`the format field "${whole}" has no value`);
    return toText(value);
  });
}
