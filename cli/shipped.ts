import { fromFileUrl } from "@std/path";

/**
 * The path of a file that is part of the program, such as the bundled model. It is found from this module, since the working directory is
 * the user's. In a package, the whole program is one script in a folder beside these files, as this module is here.
 */
export function shippedPath(path: string): string {
  return fromFileUrl(new URL(`../${path}`, import.meta.url));
}
