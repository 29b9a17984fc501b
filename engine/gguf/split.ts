import { basename, dirname, join } from "@std/path";
import { PagesiftError } from "../errors.ts";
import { ConfigFields, type Range } from "../folder/config_fields.ts";
import { refuseLinkOut, shorten } from "../folder/json_file.ts";
import { type GgufHeader, type GgufTensor, readGgufHeader } from "./header.ts";

/** Name of a part, as in `model-00001-of-00003.gguf`. */
const PART_NAME = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/;
const PARTS: Range = { min: 0, max: 99_999 };

/** A model that lies in one or more files. */
export interface GgufModel {
  /** Of the first file, with the metadata of the model. */
  readonly header: GgufHeader;
  /** Of all files, by name. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** Paths of all files. */
  readonly files: readonly string[];
}

/** Reads the headers of a GGUF file and, where it is the first of several parts, of the others. Throws "model" errors. */
export async function readGgufModel(file: string): Promise<GgufModel> {
  const header = await readGgufHeader(file);
  const [index, count] = partOf(header);
  if (count < 2) return { header, tensors: header.tensors, files: [file] };
  const [, stem, number, total] = PART_NAME.exec(basename(file)) ?? [];
  if (stem === undefined || Number(number) !== index + 1 || Number(total) !== count) {
    const expected = `-${padded(index + 1)}-of-${padded(count)}.gguf`;
    throw modelError(`"${file}" is part ${index + 1} of ${count}, so its name must end in "${expected}"; rename it`);
  }
  const files = Array.from(
    { length: count },
    (_, part) => join(dirname(file), `${stem}-${padded(part + 1)}-of-${padded(count)}.gguf`),
  );
  if (index !== 0) throw modelError(`"${file}" is part ${index + 1} of ${count}; give the first part, "${files[0]}"`);
  const tensors = new Map(header.tensors);
  for (const [part, path] of files.entries()) {
    if (part > 0) await addPart(tensors, path, part, count);
  }
  const claimed = new ConfigFields(Object.fromEntries(header.metadata), file)
    .optionalCount("split.tensors.count", { min: 0, max: 1e7 });
  if (claimed === undefined || claimed === tensors.size) return { header, tensors, files };
  throw modelError(`The ${count} parts of "${file}" contain ${tensors.size} tensors, expected ${claimed}`);
}

async function addPart(tensors: Map<string, GgufTensor>, path: string, part: number, count: number): Promise<void> {
  const header = await readPart(path, part, count);
  const [index, ownCount] = partOf(header);
  if (index !== part || ownCount !== count) {
    throw modelError(`"${path}" says that it is part ${index + 1} of ${ownCount}; download it again`);
  }
  for (const [name, tensor] of header.tensors) {
    const other = tensors.get(name);
    if (other) throw modelError(`Tensor "${shorten(name)}" is in two parts: "${other.file}" and "${path}"`);
    tensors.set(name, tensor);
  }
}

async function readPart(path: string, part: number, count: number): Promise<GgufHeader> {
  try {
    await Deno.lstat(path);
  } catch {
    throw modelError(`No file "${path}", which is part ${part + 1} of ${count} of the model; download it too`);
  }
  await refuseLinkOut(path);
  return await readGgufHeader(path);
}

function partOf({ metadata, file }: GgufHeader): [index: number, count: number] {
  const fields = new ConfigFields(Object.fromEntries(metadata), file);
  const count = fields.count("split.count", PARTS, 0);
  return [fields.count("split.no", { min: 0, max: Math.max(0, count - 1) }, 0), count];
}

function padded(number: number): string {
  return String(number).padStart(5, "0");
}

function modelError(message: string): PagesiftError {
  return new PagesiftError("model", message);
}
