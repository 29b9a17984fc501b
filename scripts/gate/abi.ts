/**
 * Generates the tables of the bindings from the C header: `ffi/symbols.ts` for Deno and `scripts/studies/pagesift_abi.py` for ctypes.
 * A table that differs from the header would corrupt memory at run time.
 *
 *     deno run -A scripts/gate/abi.ts [--write]
 *
 * Without `--write` it checks that both files match the header, and that something in ffi/ calls every function.
 */
import { join } from "@std/path";
import { ROOT } from "../release/native_library.ts";
import { log } from "../output.ts";
import { type CField, type CFunction, type Header, parseHeader } from "./abi_header.ts";

const HEADER = "csrc/include/pagesift.h";
const FFI = "ffi";
const SYMBOLS = `${FFI}/symbols.ts`;
const CTYPES = "scripts/studies/pagesift_abi.py";
const NOTICE = `Generated from ${HEADER}; after a change there, run "deno run -A scripts/gate/abi.ts --write".`;
/** Calls that run on a separate thread, so that they do not block the event loop. */
const NONBLOCKING = new Set(["ps_device_wait"]);
const DENO_TYPES: Readonly<Record<string, string>> = { int32_t: "i32", int64_t: "i64", float: "f32" };
const CTYPES_TYPES: Readonly<Record<string, string>> = {
  ...{ int32_t: "c.c_int32", uint32_t: "c.c_uint32", int64_t: "c.c_int64", float: "c.c_float", char: "c.c_char" },
  ...{ "char *": "c.c_char_p", "void *": "c.c_void_p" },
};
/** Python lists up to this width stay on one line, independent of the line length of the formatter. */
const ONE_LINE = 80;

function known(type: string, types: Readonly<Record<string, string>>): string {
  const found = types[type];
  if (found === undefined) throw new Error(`abi: the bindings do not know the type "${type}" of the header`);
  return found;
}

/** Handles are pointers for Deno; every other pointer is a buffer. */
function denoType(type: string, { handles }: Header): string {
  if (!type.endsWith("*")) return known(type, DENO_TYPES);
  return handles.has(type.replace(/ \*$/, "")) ? "pointer" : "buffer";
}

function jsDoc(lines: readonly string[]): string[] {
  if (lines.length < 2) return lines.map((line) => `/** ${line} */`);
  return ["/**", ...lines.map((line) => ` * ${line}`), " */"];
}

function denoFunction({ name, parameters, result, comment }: CFunction, header: Header): string[] {
  const types = parameters.map(({ type }) => `"${denoType(type, header)}"`);
  const names = parameters.length === 0 ? [] : [`(${parameters.map((one) => one.name).join(", ")})`];
  const nonblocking = NONBLOCKING.has(name) ? ", nonblocking: true" : "";
  return [
    ...jsDoc([...comment, ...names]),
    `  ${name}: { parameters: [${types.join(", ")}], result: "${denoType(result, header)}"${nonblocking} },`,
  ];
}

/** `ps_invalid_argument` as `InvalidArgument`. */
function pascal(name: string): string {
  return name.toLowerCase().replace(/^ps_/, "").replaceAll(/(?:^|_)([a-z0-9])/g, (_, letter) => letter.toUpperCase());
}

/** The prefix that all names of an enum share, `FIELD_` for those of ps_cache_field. */
function commonPrefix(names: readonly string[]): string {
  const [first = "", ...others] = names;
  const ends = [...first.matchAll(/_/g)].map(({ index }) => first.slice(0, index + 1)).reverse();
  return others.length === 0 ? "" : ends.find((prefix) => others.every((name) => name.startsWith(prefix))) ?? "";
}

function denoSymbols(header: Header): string {
  const status = header.enums.find(({ name }) => name === "ps_status");
  const enums = header.enums.filter((one) => one !== status).map(({ name, values }) => {
    const prefix = commonPrefix(values.map(([key]) => key));
    const entries = values.map(([key, value]) => `${key.slice(prefix.length).toLowerCase()}: ${value}`);
    return `  ${name}: { ${entries.join(", ")} },`;
  });
  return [
    `// ${NOTICE}`,
    "",
    `export const ABI_VERSION = ${header.version};`,
    "",
    "/** What a native call returned. */",
    "export enum Status {",
    ...(status?.values ?? []).map(([key, value]) => `  ${pascal(key)} = ${value},`),
    "}",
    "",
    "/** The other enums, without the prefix that their names share. */",
    "export const ENUMS = {",
    ...enums,
    "} as const;",
    "",
    "/** Size of every struct, in the order of `ps_struct_bytes`. */",
    "export const STRUCT_BYTES = {",
    ...header.structs.map(({ name, bytes }) => `  ${name}: ${bytes},`),
    "} as const;",
    "",
    "/** Where the fields of every struct begin, in bytes. */",
    "export const OFFSETS = {",
    ...header.structs.map(({ name, fields }) =>
      `  ${name}: { ${fields.map((field) => `${field.name}: ${field.offset}`).join(", ")} },`
    ),
    "} as const;",
    "",
    "/** The functions. Handles and structs are passed as pointers or buffers. */",
    "export const symbols = {",
    ...header.functions.flatMap((one) => denoFunction(one, header)),
    "} as const satisfies Deno.ForeignLibraryInterface;",
    "",
    'export type Symbols = Deno.DynamicLibrary<typeof symbols>["symbols"];',
    "",
  ].join("\n");
}

function ctypesType(type: string, { handles, structs }: Header): string {
  const base = type.replace(/ \*+$/, "");
  if (handles.has(base)) return type.endsWith("**") ? "c.POINTER(c.c_void_p)" : "c.c_void_p";
  if (structs.some(({ name }) => name === base)) return `c.POINTER(${pascal(base)})`;
  if (type in CTYPES_TYPES || !type.endsWith("*")) return known(type, CTYPES_TYPES);
  return `c.POINTER(${known(base, CTYPES_TYPES)})`;
}

/** A list or tuple, on one line or with one item per line, as Python formatters leave it. */
function pythonItems(start: string, items: readonly string[], end: string, indent: string): string[] {
  const line = `${indent}${start}${items.join(", ")}${end}`;
  if (line.length <= ONE_LINE) return [line];
  return [`${indent}${start}`, ...items.map((item) => `${indent}    ${item},`), `${indent}${end}`];
}

function ctypesField({ name, type, count }: CField, header: Header): string {
  const one = ctypesType(type, header);
  return `("${name}", ${count === 1 ? one : `${one} * ${count}`})`;
}

function ctypesTables(header: Header): string {
  const structs = header.structs.flatMap(({ name, fields }) => [
    "",
    "",
    `class ${pascal(name)}(c.Structure):`,
    `    """The struct ${name}."""`,
    "",
    ...pythonItems("_fields_ = (", fields.map((field) => ctypesField(field, header)), ")", "    "),
  ]);
  const functions = header.functions.flatMap(({ name, result, parameters }) =>
    pythonItems(
      `"${name}": [`,
      [result, ...parameters.map(({ type }) => type)].map((type) => ctypesType(type, header)),
      "],",
      "    ",
    )
  );
  return [
    `"""${NOTICE}"""`,
    "",
    "import ctypes as c",
    "",
    `ABI_VERSION = ${header.version}`,
    ...header.enums.flatMap(({ values }) => values.map(([key, value]) => `${key} = ${value}`)),
    ...structs,
    "",
    "",
    "# In the order of ps_struct_bytes.",
    ...pythonItems("STRUCTS = (", header.structs.map(({ name }) => pascal(name)), ")", ""),
    "",
    "# The result of every function, then its parameters.",
    "SIGNATURES = {",
    ...functions,
    "}",
    "",
  ].join("\n");
}

async function formatted(source: string): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--ext", "ts", "-"],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(source));
  await writer.close();
  const { success, stdout } = await output;
  if (!success) throw new Error("abi: deno fmt could not read the generated table");
  return new TextDecoder().decode(stdout);
}

/** The expected content of the generated files, by path. */
export async function generate(header: string): Promise<Map<string, string>> {
  const parsed = parseHeader(header);
  return new Map([[SYMBOLS, await formatted(denoSymbols(parsed))], [CTYPES, ctypesTables(parsed)]]);
}

/** The generated files that differ from the header. */
export async function outdatedFiles(header: string): Promise<string[]> {
  const wanted = await generate(header);
  return [...wanted].filter(([path, text]) => readText(path) !== text).map(([path]) => path);
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(join(ROOT, path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/** Functions that nothing in ffi/ calls. */
function unusedFunctions({ functions }: Header): string[] {
  const files = [...Deno.readDirSync(join(ROOT, FFI))].map(({ name }) => `${FFI}/${name}`).filter((path) =>
    path !== SYMBOLS
  );
  const text = files.map(readText).join("\n");
  return functions.map(({ name }) => name).filter((name) => !new RegExp(`\\.${name}\\(`).test(text));
}

async function main(): Promise<number> {
  const header = readText(HEADER);
  if (Deno.args.includes("--write")) {
    for (const [path, text] of await generate(header)) Deno.writeTextFileSync(join(ROOT, path), text);
    return 0;
  }
  const problems = [
    ...(await outdatedFiles(header)).map((path) =>
      `abi: ${path} differs from ${HEADER}; run "deno run -A scripts/gate/abi.ts --write"`
    ),
    ...unusedFunctions(parseHeader(header)).map((name) => `abi: nothing in ${FFI}/ calls ${name}`),
  ];
  for (const problem of problems) log(problem);
  if (problems.length === 0) log(`abi: ${parseHeader(header).functions.length} functions agree`);
  return problems.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
