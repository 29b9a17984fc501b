/** The licences of the parts of a package that are not our own code. */
import { join } from "@std/path";
import { ROOT } from "./native_library.ts";

const LINE = "=".repeat(78);

/** One component: its name, its purpose, and the text of its licence. */
function section(title: string, text: string): string {
  return `${LINE}\n${title}\n${LINE}\n\n${text.trim()}\n`;
}

/** The MIT licence, whose text is the same as ours, for other authors. */
function mit(authors: string): string {
  const ours = Deno.readTextFileSync(join(ROOT, "LICENSE"));
  const text = ours.replace(/^Copyright .*$/m, authors);
  if (text === ours) throw new Error("LICENSE has no line that begins with Copyright");
  return text;
}

/** The licence file of an npm package, beside its folder of scripts. */
function licenceOf(name: string): string {
  return Deno.readTextFileSync(new URL("../LICENSE", import.meta.resolve(name)));
}

const GCC = `\
The native libraries contain parts of the GCC runtime libraries libstdc++ and libgcc, Copyright the Free Software
Foundation, Inc., under the GNU General Public License version 3 with the GCC Runtime Library Exception version 3.1,
which permits distributing programs that contain them under terms of one's own choice.
https://www.gnu.org/licenses/gcc-exception-3.1.html`;

const CUDA = `\
libpagesift_cuda.so contains the CUDA Runtime (cudart_static), Copyright NVIDIA Corporation. It is listed as
redistributable in Attachment A of the CUDA Toolkit End User License Agreement and is distributed here under that
agreement, as a part of an application that has material functionality of its own. It may be used with that
application only. https://docs.nvidia.com/cuda/eula/`;

/** Parts that a package may contain. */
export type Part = "runtime" | "program" | "cpu" | "cuda";

/** The text of THIRD_PARTY_LICENSES for a package of these parts. */
export function thirdPartyLicences(parts: readonly Part[]): string {
  const deno = mit("Copyright 2018-2026 the Deno authors");
  const runtime = section(
    "Deno runtime (runtime/deno), https://github.com/denoland/deno",
    `${deno}\nIt contains V8 and other components; their notices are at the address above.`,
  );
  const program = [
    section("Deno standard library, npm package deno-std (in app/pagesift.js)", deno),
    section("@huggingface/tokenizers (in app/pagesift.js)", licenceOf("@huggingface/tokenizers")),
  ];
  return [
    ...parts.includes("runtime") ? [runtime] : [],
    ...parts.includes("program") ? program : [],
    ...parts.includes("cpu") || parts.includes("cuda") ? [section("GCC runtime libraries", GCC)] : [],
    ...parts.includes("cuda") ? [section("NVIDIA CUDA Runtime", CUDA)] : [],
  ].join("\n");
}
