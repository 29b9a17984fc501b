/** The part of JSON Schema that our schemas use; a keyword that is not known here fails, so that none is passed over. */

interface Schema {
  [keyword: string]: unknown;
}

const NOTES = ["$schema", "title", "description"];

/** Where a value does not match a schema, a line each. */
export function schemaProblems(schema: Schema, value: unknown, path = "$"): string[] {
  return Object.entries(schema).flatMap(([keyword, wanted]) => {
    if (NOTES.includes(keyword)) return [];
    const check = CHECKS[keyword];
    if (!check) return [`${path}: the schema's keyword ${keyword} is not known`];
    return check(wanted as never, value, path, schema);
  });
}

type Check = (wanted: never, value: unknown, path: string, schema: Schema) => string[];

const CHECKS: Readonly<Record<string, Check>> = {
  const: (wanted, value, path) => problem(value === wanted, path, value, `wanted ${wanted}`),
  enum: (wanted: unknown[], value, path) => problem(wanted.includes(value), path, value, `wanted one of ${wanted}`),
  type: (wanted: string | string[], value, path) =>
    problem([wanted].flat().some((type) => isOfType(value, type)), path, value, `wanted ${wanted}`),
  minimum: (wanted: number, value, path) =>
    problem(typeof value !== "number" || value >= wanted, path, value, `wanted ${wanted} or more`),
  maximum: (wanted: number, value, path) =>
    problem(typeof value !== "number" || value <= wanted, path, value, `wanted ${wanted} or less`),
  items: (wanted: Schema, value, path) =>
    Array.isArray(value) ? value.flatMap((item, at) => schemaProblems(wanted, item, `${path}[${at}]`)) : [],
  properties: (wanted: Record<string, Schema>, value, path) =>
    Object.entries(wanted).flatMap(([name, schema]) => {
      const field = (value as Record<string, unknown> | null)?.[name];
      return field === undefined ? [] : schemaProblems(schema, field, `${path}.${name}`);
    }),
  required: (wanted: string[], value, path) =>
    wanted.filter((name) => !(name in (value as object))).map((name) => `${path}.${name} is missing`),
  additionalProperties: (_, value, path, { properties }) =>
    Object.keys(value as object).filter((name) => !(name in (properties as object)))
      .map((name) => `${path}.${name} is not in the schema`),
};

function problem(fine: boolean, path: string, value: unknown, wanted: string): string[] {
  return fine ? [] : [`${path} is ${JSON.stringify(value)}, ${wanted}`];
}

function isOfType(value: unknown, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  const actual: string = typeof value;
  return actual === type;
}
