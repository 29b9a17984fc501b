/** `strftime` of Python on Linux, in the C locale and in local time without a zone, as `datetime.now()` has none. */
import { TemplateError, unsupported } from "./errors.ts";

const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
const MONTHS = "January February March April May June July August September October November December".split(" ");
const DAY_MS = 86_400_000;

/** A number with the width and the filler that it has by default. */
type Field = string | { value: number; width: number; pad: "0" | " " };

function number(value: number, width = 2, pad: "0" | " " = "0"): Field {
  return { value, width, pad };
}

/** Days since the first of January. */
function dayOfYear(time: Date): number {
  return Math.round(
    (Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()) - Date.UTC(time.getFullYear(), 0, 1)) / DAY_MS,
  );
}

/** Year and week of ISO 8601. */
function isoWeek(time: Date): [year: number, week: number] {
  const weekday = (time.getDay() + 6) % 7;
  const thursday = new Date(Date.UTC(time.getFullYear(), time.getMonth(), time.getDate() - weekday + 3));
  const year = thursday.getUTCFullYear();
  return [year, 1 + Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / DAY_MS / 7)];
}

function fieldOf(letter: string, time: Date): Field | undefined {
  const hour12 = time.getHours() % 12 || 12;
  switch (letter) {
    case "a":
      return DAYS[time.getDay()]!.slice(0, 3);
    case "A":
      return DAYS[time.getDay()]!;
    case "b":
    case "h":
      return MONTHS[time.getMonth()]!.slice(0, 3);
    case "B":
      return MONTHS[time.getMonth()]!;
    case "c":
      return strftime(time, "%a %b %e %H:%M:%S %Y");
    case "C":
      return number(Math.floor(time.getFullYear() / 100));
    case "d":
      return number(time.getDate());
    case "D":
    case "x":
      return strftime(time, "%m/%d/%y");
    case "e":
      return number(time.getDate(), 2, " ");
    case "f":
      return String(time.getMilliseconds() * 1000).padStart(6, "0");
    case "F":
      return strftime(time, "%Y-%m-%d");
    case "g":
      return number(isoWeek(time)[0] % 100);
    case "G":
      return number(isoWeek(time)[0], 4);
    case "H":
      return number(time.getHours());
    case "I":
      return number(hour12);
    case "j":
      return number(dayOfYear(time) + 1, 3);
    case "k":
      return number(time.getHours(), 2, " ");
    case "l":
      return number(hour12, 2, " ");
    case "m":
      return number(time.getMonth() + 1);
    case "M":
      return number(time.getMinutes());
    case "n":
      return "\n";
    case "p":
      return time.getHours() < 12 ? "AM" : "PM";
    case "P":
      return time.getHours() < 12 ? "am" : "pm";
    case "r":
      return strftime(time, "%I:%M:%S %p");
    case "R":
      return strftime(time, "%H:%M");
    case "s":
      return number(Math.floor(time.getTime() / 1000), 1);
    case "S":
      return number(time.getSeconds());
    case "t":
      return "\t";
    case "T":
    case "X":
      return strftime(time, "%H:%M:%S");
    case "u":
      return number(time.getDay() || 7, 1);
    case "U":
      return number(Math.floor((dayOfYear(time) + 7 - time.getDay()) / 7));
    case "V":
      return number(isoWeek(time)[1]);
    case "w":
      return number(time.getDay(), 1);
    case "W":
      return number(Math.floor((dayOfYear(time) + 7 - (time.getDay() + 6) % 7) / 7));
    case "y":
      return number(time.getFullYear() % 100);
    case "Y":
      return number(time.getFullYear(), 1);
    case "z":
    case "Z":
      return "";
    case "%":
      return "%";
  }
}

/** The time in a format. Flags are those of glibc: `-` no padding, `_` spaces, `0` zeros, `^` upper case, `#` the other case. */
export function strftime(time: Date, format: string): string {
  return format.replace(/%([-_0^#]*)(\d*)([\s\S]?)/g, (whole, flags: string, width: string, letter: string) => {
    const field = fieldOf(letter, time);
    if (field === undefined) {
      if (letter === "") throw new TemplateError(`strftime_now() has the format "${whole}", which is cut short`);
      throw unsupported(`the field "${whole}" of strftime_now()`);
    }
    if (flags !== "" && "fzZ".includes(letter) || width.length > 3) {
      throw unsupported(`the field "${whole}" of strftime_now()`);
    }
    const last = [...flags].findLast((flag) => "-_0".includes(flag));
    if (typeof field === "string") {
      const upper = flags.includes("^") || flags.includes("#") && letter !== "p" && letter !== "Z";
      const text = upper ? field.toUpperCase() : flags.includes("#") ? field.toLowerCase() : field;
      return last === "-" ? text : text.padStart(Number(width), last === "0" ? "0" : " ");
    }
    if (last === "-") return String(field.value);
    const pad = last === "_" ? " " : last === "0" ? "0" : field.pad;
    return String(field.value).padStart(width === "" ? field.width : Number(width), pad);
  });
}
