/** Files that llama.cpp's own quantiser wrote, in every format that we read: our logits against its own. */
import { assert } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { Engine } from "../../engine/engine.ts";
import { openModelSource } from "../../engine/source/model_source.ts";
import { agreementOf, ourPath } from "../../scripts/peers/check_llama_cpp.ts";
import { convertGguf } from "../../scripts/peers/convert_gguf.ts";
import { LlamaCpp } from "../../scripts/peers/llama_cpp/client.ts";
import { FILE_TYPES, type FileType } from "../../scripts/peers/llama_cpp/shim.ts";
import { realTest } from "./expected.ts";

/** The shipped model, whose rows are whole blocks of 256 numbers. */
const MODEL = fromFileUrl(new URL("../../models/default", import.meta.url));
const PROMPT = "The chances of anything manlike on Mars are a million to one, he said.";
const STEPS = 8;

async function withQuantized(type: FileType, use: (file: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const { path } = await convertGguf(MODEL, join(folder, "model.gguf"));
    const target = join(folder, `model-${type}.gguf`);
    await LlamaCpp.quantize(path, target, type);
    await use(target);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function load(path: string): Promise<Engine> {
  return Engine.load(path, { device: "cpu", threads: 2, maxContext: 256 });
}

for (const type of Object.keys(FILE_TYPES) as FileType[]) {
  realTest("smollm2", `a ${type} file of llama.cpp's quantiser gives the logits of llama.cpp`, async () => {
    await withQuantized(type, async (file) => {
      const { tensors } = await (await openModelSource(file)).tensors();
      const formats = new Set([...tensors.values()].map(({ dtype }) => dtype));
      assert([...formats].some((format) => type.startsWith(format)), [...formats].join());
      await using engine = await load(file);
      await using peer = await LlamaCpp.start(file);
      const prompt = engine.tokenizer.encode(PROMPT);
      const path = await ourPath(engine, prompt, STEPS);
      const kv = { kv: "F16", flash: true } as const;
      await peer.open("a", { contextTokens: 128, batchTokens: 512, threads: 2, ...kv });
      const { sameChoices, margin, typical } = await agreementOf(peer, "a", prompt, path);
      assert(sameChoices >= STEPS - 1 || margin < 0.1, `${sameChoices} of ${STEPS} choices, margin ${margin}`);
      assert(typical < 0.15, `logits differ by ${typical}`);
    });
  });
}
