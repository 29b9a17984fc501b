import { PagesiftError } from "../errors.ts";
import { shorten } from "../folder/json_file.ts";

/** A file of a repository, at most one folder deep. */
const FILE = /^(?:[\w-][\w.-]*\/)?[\w-][\w.-]*\.gguf$/;
const PART = /-(\d{5})-of-(\d{5})\.gguf$/;
/** Weights of something beside the language model: image encoders, and statistics for quantising. */
const OTHER = /(^|\/|[-_.])(mmproj|imatrix)[-_.]/i;
const NAMES_IN_MESSAGE = 12;

/** Whether a name is that of a GGUF file. */
export function isGgufName(name: string): boolean {
  return /\.gguf$/i.test(name);
}

/**
 * The file, or all parts of it, that `wanted` names among the files of the repository `id`: a file, a format such as `Q4_K_M`, or, where
 * it is undefined, the only model of the repository. Throws a "model" error that lists the choices.
 */
export function chooseGguf(files: readonly string[], wanted: string | undefined, id: string): string[] {
  const models = modelsOf(files);
  const fits = [...models.keys()].filter((name) => wanted === undefined || matches(name, wanted));
  const [first] = fits;
  if (first !== undefined && fits.length === 1) return models.get(first) ?? [];
  const shown = [...models.keys()].slice(0, NAMES_IN_MESSAGE).map((name) => shorten(name)).join(", ");
  const more = models.size > NAMES_IN_MESSAGE ? ` and ${models.size - NAMES_IN_MESSAGE} more` : "";
  const problem = fits.length === 0
    ? `No GGUF file "${shorten(wanted ?? "")}" in "${id}"`
    : `${fits.length} GGUF files fit "${id}${wanted === undefined ? "" : `:${shorten(wanted)}`}"`;
  throw new PagesiftError(
    "model",
    models.size === 0
      ? `No GGUF file in "${id}"; choose another model`
      : `${problem}; name one, as in "${id}:Q4_K_M" or "${id}:FILE.gguf": ${shown}${more}`,
  );
}

/** Models by the name of their first file. Parts of which one is missing are no model. */
function modelsOf(files: readonly string[]): Map<string, string[]> {
  const known = new Set(files.filter((name) => FILE.test(name) && !name.includes("..") && !OTHER.test(name)));
  const models = new Map<string, string[]>();
  for (const name of known) {
    const [, number, count] = PART.exec(name) ?? [];
    if (number === undefined) models.set(name, [name]);
    if (number !== "00001") continue;
    const parts = Array.from(
      { length: Number(count) },
      (_, part) => name.replace(PART, `-${String(part + 1).padStart(5, "0")}-of-${count}.gguf`),
    );
    if (parts.every((part) => known.has(part))) models.set(name, parts);
  }
  return models;
}

/** Formats stand between separators, in the name of the file or of its folder. */
function matches(name: string, wanted: string): boolean {
  if (isGgufName(wanted)) return name === wanted;
  const format = wanted.replace(/[^\w]/g, "\\$&");
  return new RegExp(`(^|[-./])${format}(-\\d{5}-of-\\d{5})?(\\.gguf$|/)`, "i").test(name);
}
