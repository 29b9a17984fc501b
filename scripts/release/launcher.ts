/** The launchers: shell scripts that replace themselves by Deno, so that signals and exit codes are those of the program. */

/** Where the parts of the program lie in its folder. The bundle finds libraries and models as in the source tree, one folder up. */
export const BUNDLE = "app/pagesift.js";
export const RUNTIME = "runtime/deno";
/** The folder of the program under an installation's prefix. */
export const PROGRAM = "lib/pagesift";

/** Sets `root` to the folder above that of the script, wherever it is called from and through symbolic links. */
const FIND_ROOT = `\
self=$0
while [ -h "$self" ]; do
  target=$(readlink "$self")
  case $target in
    /*) self=$target ;;
    *) self=$(dirname "$self")/$target ;;
  esac
done
root=$(CDPATH='' cd "$(dirname "$self")/.." && pwd -P)
`;

/**
 * Runs the bundle. Deno keeps caches in a folder of the user's; this program leaves no trace, so DENO_DIR is a place where nothing can be
 * written. `--allow-run` is for the signal that the program sends to itself to end by Ctrl-C; net and write are for models from the hub.
 */
function runBundle(deno: string, program: string): string {
  return `\
DENO_DIR=/dev/null/none
DENO_NO_UPDATE_CHECK=1
export DENO_DIR DENO_NO_UPDATE_CHECK
exec "${deno}" run --quiet --no-config --no-lock --no-npm --no-remote --no-code-cache --no-prompt \\
  --allow-read --allow-write --allow-env --allow-net --allow-ffi --allow-run "${program}/${BUNDLE}" "$@"
`;
}

/** `bin/pagesift` of an archive or an installation, which contains its own Deno. */
export const LAUNCHER = `#!/bin/sh
# Starts Pagesift with the runtime of its own installation.
set -eu
${FIND_ROOT}${runBundle(`$root/${PROGRAM}/${RUNTIME}`, `$root/${PROGRAM}`)}`;

/** The name of the npm package that contains the CUDA library. */
export const CUDA_PACKAGE = "@pagesift/cuda-linux-x64";

/**
 * `bin/pagesift` of the npm package. npm runs the install script of the package "deno", which puts the runtime in place; where
 * scripts are switched off, the same function does it at the first start, or names the file to run where nothing can be written.
 */
export const NPM_LAUNCHER = `#!/bin/sh
# Starts Pagesift with the runtime of the npm package "deno".
set -eu
${FIND_ROOT}
# Prints the folder of an npm package, looked for as Node does: in node_modules here, then in each folder above.
find_package() {
  folder=$root
  while [ "$folder" != / ]; do
    if [ -f "$folder/node_modules/$1/package.json" ]; then
      printf '%s' "$folder/node_modules/$1"
      return
    fi
    folder=$(dirname "$folder")
  done
  return 1
}

fail() {
  echo "Error: $1; install pagesift again with npm" >&2
  exit 1
}

package=$(find_package deno) || fail 'The npm package "deno" is missing'
deno=$package/deno
if [ ! -x "$deno" ]; then
  deno=$(node -p 'require(process.argv[1]).runInstall()' "$package/install_api.cjs" 2>/dev/null) || fail 'The Deno runtime is missing'
fi
if cuda=$(find_package ${CUDA_PACKAGE}); then
  PAGESIFT_CUDA_LIBRARY=\${PAGESIFT_CUDA_LIBRARY:-$cuda/libpagesift_cuda.so}
  export PAGESIFT_CUDA_LIBRARY
fi
${runBundle("$deno", "$root")}`;
