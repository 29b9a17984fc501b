/** Compares the C header with the binding's tables: a difference would corrupt memory at run time instead of failing here. */
import { fromFileUrl } from "@std/path";
import { Status } from "../../ffi/errors.ts";
import { ABI_VERSION } from "../../ffi/library.ts";
import { DTYPES, STRUCT_BYTES } from "../../ffi/structs.ts";
import { symbols } from "../../ffi/symbols.ts";
import { log } from "../support/lines.ts";

const HEADER = new URL("../../csrc/include/pagesift.h", import.meta.url);
const FFI = new URL("../../ffi/", import.meta.url);
const C_BYTES: Readonly<Record<string, number>> = { int32_t: 4, int64_t: 8, char: 1, pointer: 8 };

/** A function of the header, its types named as Deno names them. */
interface Signature {
  name: string;
  parameters: string[];
  result: string;
}

function withoutComments(header: string): string {
  return header.replaceAll(/\/\*[\s\S]*?\*\//g, "");
}

/** The Deno type of a C parameter: our handles are pointers, everything else that is pointed to is a buffer. */
function denoType(parameter: string): string {
  if (parameter.includes("**")) return "buffer";
  if (/\bps_(device|buffer|cache|graph) \*/.test(parameter)) return "pointer";
  if (parameter.includes("*")) return "buffer";
  return { int32_t: "i32", int64_t: "i64", float: "f32" }[parameter.trim().split(/\s+/)[0] ?? ""] ??
    `unknown (${parameter.trim()})`;
}

/** The exported functions, in the header's order. */
export function parseFunctions(header: string): Signature[] {
  const found = withoutComments(header).matchAll(/PS_API\s+(\w+)\s+(ps_\w+)\(([^)]*)\)/g);
  return [...found].map(([, result = "", name = "", list = ""]) => ({
    name,
    parameters: list.trim() === "void" ? [] : list.split(",").map(denoType),
    result: denoType(result),
  }));
}

/** Bytes of every struct, by the C rules of alignment, in the header's order. */
export function parseStructs(header: string): Map<string, number> {
  const structs = new Map<string, number>();
  for (
    const [, body = "", name = ""] of withoutComments(header).matchAll(/typedef struct \w+ \{([^}]*)\} (ps_\w+);/g)
  ) {
    let offset = 0;
    let widest = 1;
    for (const field of body.split(";").map((line) => line.trim()).filter((line) => line !== "")) {
      const size = C_BYTES[field.includes("*") ? "pointer" : field.split(/\s+/)[0] ?? ""] ?? NaN;
      const count = Number(field.match(/\[(\d+)\]/)?.[1] ?? 1);
      offset = Math.ceil(offset / size) * size + size * count;
      widest = Math.max(widest, size);
    }
    structs.set(name, Math.ceil(offset / widest) * widest);
  }
  return structs;
}

function enumValues(header: string, name: string): Map<string, number> {
  const body = withoutComments(header).match(new RegExp(`typedef enum ${name} \\{([^}]*)\\}`))?.[1] ?? "";
  return new Map([...body.matchAll(/PS_(\w+) = (\d+)/g)].map(([, key = "", value]) => [key, Number(value)]));
}

function compareFunctions(header: string): string[] {
  const wanted = parseFunctions(header).map((one) => `${one.name}(${one.parameters.join(", ")}) ${one.result}`);
  const bound = Object.entries(symbols).map(([name, one]) => `${name}(${one.parameters.join(", ")}) ${one.result}`);
  const waiting = Object.entries(symbols).filter(([, one]) => "nonblocking" in one).map(([name]) => name);
  const problems = wanted.length === bound.length
    ? []
    : [`The header has ${wanted.length} functions, symbols.ts ${bound.length}`];
  wanted.forEach((line, index) => {
    if (line !== bound[index]) problems.push(`Function ${index}: the header has ${line}, symbols.ts ${bound[index]}`);
  });
  return waiting.join() === "ps_device_wait"
    ? problems
    : [...problems, `Only ps_device_wait may be nonblocking, found ${waiting}`];
}

function compareValues(header: string): string[] {
  const version = Number(header.match(/#define PS_ABI_VERSION (\d+)/)?.[1]);
  const dtypes = [...enumValues(header, "ps_dtype").keys()].map((name) => name.toLowerCase());
  const statuses = [...enumValues(header, "ps_status")].map(([name, value]) => `${name.replaceAll("_", "")}=${value}`);
  const ours = Object.entries(Status).filter(([, value]) => typeof value === "number").map(([name, value]) =>
    `${name.toUpperCase()}=${value}`
  );
  const structs = JSON.stringify([...parseStructs(header)]);
  const problems: string[] = [];
  if (version !== ABI_VERSION) problems.push(`The header has ABI version ${version}, library.ts ${ABI_VERSION}`);
  if (dtypes.join() !== DTYPES.join()) problems.push(`The header has dtypes ${dtypes}, structs.ts ${DTYPES}`);
  if (statuses.join() !== ours.join()) problems.push(`The header has statuses ${statuses}, errors.ts ${ours}`);
  if (structs !== JSON.stringify(Object.entries(STRUCT_BYTES))) {
    problems.push(`The header has structs ${structs}, structs.ts ${JSON.stringify(Object.entries(STRUCT_BYTES))}`);
  }
  return problems;
}

/** Every difference between a header and the binding, a line each. */
export function compareAbi(header: string): string[] {
  return [...compareFunctions(header), ...compareValues(header)];
}

/** Functions that the tables of symbols declare and nothing in ffi/ calls. */
function unusedSymbols(): string[] {
  const files = [...Deno.readDirSync(FFI)].filter(({ name }) => !name.startsWith("symbols"));
  const text = files.map(({ name }) => Deno.readTextFileSync(new URL(name, FFI))).join("\n");
  return Object.keys(symbols).filter((name) => !new RegExp(`\\.${name}\\(`).test(text)).map((name) =>
    `Nothing in ffi/ calls ${name}`
  );
}

if (import.meta.main) {
  const problems = [...compareAbi(Deno.readTextFileSync(fromFileUrl(HEADER))), ...unusedSymbols()];
  const line = problems.length === 0
    ? `check_abi: ${Object.keys(symbols).length} functions agree`
    : problems.join("\n");
  log(line);
  if (problems.length > 0) Deno.exit(1);
}
