/** Lines of JSON from a user's file, with errors that name the line and the field. */
import { usageError } from "./lists.ts";

/** The object of a line; `place` names the line in messages. @throws {PagesiftError} of kind "usage" */
export function parseObject(line: string, place: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw usageError(`${place} is not JSON; expected one object per line`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw usageError(`${place} is not an object`);
}

/** The error for a field that is missing or has another value than expected. */
export function fieldError(place: string, name: string, value: unknown, expected: string): Error {
  const found = value === undefined ? "is missing" : `is ${JSON.stringify(value).slice(0, 60)}`;
  return usageError(`${place}: field "${name}" ${found}, expected ${expected}`);
}
