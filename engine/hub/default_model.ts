import { fromFileUrl } from "@std/path";
import { PagesiftError } from "../errors.ts";

/**
 * The folder of the model that a checkout or an installation contains, `models/default`. It is found from the module's own path, so it
 * does not depend on the working directory.
 *
 * @throws {PagesiftError} of kind "model" when the module was loaded from the network, which brings no model
 */
export function defaultModelFolder(): string {
  const url = new URL(import.meta.url);
  if (url.protocol === "file:") return fromFileUrl(new URL("../../models/default", url));
  throw new PagesiftError(
    "model",
    'No default model: Pagesift was loaded from the network; pass a model folder or a Hub name such as "org/name" instead',
  );
}
