/** Parses the C header: version, enums, structs and functions, each with the comment before it. */

export interface CParameter {
  name: string;
  /** The type without the name and `const`: `int32_t`, `ps_tensor *`, `ps_device **`. */
  type: string;
}

export interface CFunction {
  name: string;
  result: string;
  parameters: CParameter[];
  /** The lines of the comment before it, or none. */
  comment: string[];
}

export interface CField extends CParameter {
  /** Elements of an array, or 1. */
  count: number;
  offset: number;
}

export interface CStruct {
  name: string;
  bytes: number;
  fields: CField[];
  comment: string[];
}

export interface CEnum {
  name: string;
  /** Names without `PS_`. */
  values: [name: string, value: number][];
}

export interface Header {
  version: number;
  /** Types of handles, such as `ps_device`, which are opaque outside the library. */
  handles: Set<string>;
  enums: CEnum[];
  structs: CStruct[];
  functions: CFunction[];
}

const SCALAR_BYTES: Readonly<Record<string, number>> = { int32_t: 4, uint32_t: 4, float: 4, int64_t: 8, char: 1 };
const POINTER_BYTES = 8;
/** A comment that ends directly before the declaration it describes. */
const COMMENT = String.raw`(?:/\*((?:[^*]|\*(?!/))*)\*/\n)?`;

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, "");
}

function commentLines(comment: string | undefined): string[] {
  return (comment ?? "").split("\n").map((line) => line.replace(/^\s*\* ?/, "").trimEnd()).map((line, index) =>
    index === 0 ? line.trim() : line
  ).filter((line) => line !== "");
}

/** `const ps_tensor *x` or `int64_t shape[3]`. @throws {Error} for any other declaration */
function parseDeclaration(text: string): CParameter & { count: number } {
  const match = /^(?:const )?(\w+)\s*(\**)\s*(\w+)(?:\[(\d+)\])?$/.exec(text.trim().replaceAll(/\s+/g, " "));
  if (!match) throw new Error(`abi: cannot read the declaration "${text.trim()}" of the header`);
  const [, base = "", stars = "", name = "", count] = match;
  return { name, type: stars === "" ? base : `${base} ${stars}`, count: Number(count ?? 1) };
}

function bytesOf(type: string): number {
  const bytes = type.endsWith("*") ? POINTER_BYTES : SCALAR_BYTES[type];
  if (bytes === undefined) throw new Error(`abi: a field of the header has the type "${type}", whose size is unknown`);
  return bytes;
}

/** Lays out the fields by the alignment rules of C. */
function parseStruct(name: string, body: string, comment: string[]): CStruct {
  let offset = 0;
  let widest = 1;
  const fields = withoutComments(body).split(";").map((line) => line.trim()).filter((line) => line !== "").map(
    (line) => {
      const field = parseDeclaration(line);
      const bytes = bytesOf(field.type);
      const at = Math.ceil(offset / bytes) * bytes;
      offset = at + bytes * field.count;
      widest = Math.max(widest, bytes);
      return { ...field, offset: at };
    },
  );
  return { name, bytes: Math.ceil(offset / widest) * widest, fields, comment };
}

function parseEnum(name: string, body: string): CEnum {
  const values = withoutComments(body).matchAll(/PS_(\w+) = (\d+)/g);
  return { name, values: [...values].map(([, key = "", value]) => [key, Number(value)]) };
}

function parseFunction(result: string, name: string, list: string, comment: string[]): CFunction {
  const parameters = list.trim() === "void" ? [] : list.split(",").map((text) => {
    const { name, type } = parseDeclaration(text);
    return { name, type };
  });
  return { name, result, parameters, comment };
}

/** @throws {Error} if the header contains a declaration that the bindings cannot express */
export function parseHeader(header: string): Header {
  const parsed = parse(header);
  const expected = { functions: /^PS_API /gm, structs: /^typedef struct \w+ \{/gm, enums: /^typedef enum /gm };
  for (const [kind, pattern] of Object.entries(expected)) {
    const [found, read] = [[...header.matchAll(pattern)].length, parsed[kind as keyof typeof expected].length];
    if (found !== read) throw new Error(`abi: can read ${read} of the ${found} ${kind} of the header`);
  }
  return parsed;
}

function parse(header: string): Header {
  const structs = header.matchAll(new RegExp(`${COMMENT}typedef struct \\w+ \\{([^}]*)\\} (ps_\\w+);`, "g"));
  const functions = header.matchAll(new RegExp(`${COMMENT}PS_API (\\w+) (ps_\\w+)\\(([^)]*)\\);`, "g"));
  return {
    version: Number(/#define PS_ABI_VERSION (\d+)/.exec(header)?.[1]),
    handles: new Set([...header.matchAll(/typedef struct (ps_\w+) \1;/g)].map(([, name = ""]) => name)),
    enums: [...header.matchAll(/typedef enum (ps_\w+) \{([^}]*)\}/g)].map(([, name = "", body = ""]) =>
      parseEnum(name, body)
    ),
    structs: [...structs].map(([, comment, body = "", name = ""]) => parseStruct(name, body, commentLines(comment))),
    functions: [...functions].map(([, comment, result = "", name = "", list = ""]) =>
      parseFunction(result, name, list, commentLines(comment))
    ),
  };
}
