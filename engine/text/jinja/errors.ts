/** Why a template cannot be used: broken, not allowed by the sandbox, or beyond what this implementation supports. */
export class TemplateError extends Error {
  override readonly name = "TemplateError";
}

/** A feature of Jinja or Python that this implementation does not have. */
export function unsupported(feature: string): TemplateError {
  return new TemplateError(`it uses ${feature}, which is not supported`);
}
