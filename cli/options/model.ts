import { KV_TYPES } from "../../engine/pages/kv_type.ts";
import { WEIGHT_FORMATS } from "../../engine/folder/weight_formats.ts";
import { choiceOption, countOption, deviceListOption, switchOption, textOption } from "./option.ts";

/** Which model to run. */
export const modelOptions = {
  model: textOption({
    flags: ["-m", "--model"],
    group: "Model and device",
    placeholder: "DIR|FILE|NAME",
    fallback: undefined,
    fallbackText: "PAGESIFT_MODEL, else the bundled model",
    help: "Model folder, GGUF file, or a hub name such as org/name, org/name:Q4_K_M or org/name:file.gguf",
  }),
  adapter: textOption({
    flags: ["--adapter"],
    group: "Model and device",
    placeholder: "DIR",
    fallback: undefined,
    help:
      "Folder of a LoRA adapter in the layout of PEFT, merged into the weights while they load; its sparsity.json " +
      "applies. Quantised weights that it changes take 16 bits",
  }),
  revision: textOption({
    flags: ["--revision"],
    group: "Model and device",
    placeholder: "NAME",
    fallback: undefined,
    fallbackText: "main",
    help: "Branch, tag or commit of a hub model",
  }),
  offline: switchOption({ flags: ["--offline"], group: "Model and device", help: "Never download" }),
  weights: choiceOption({
    flags: ["--weights"],
    group: "Model and device",
    choices: WEIGHT_FORMATS,
    fallback: "auto",
    help:
      "What the matrices of a 16-bit or 32-bit model are stored in; auto keeps the format of the files. With 4 or 5 " +
      "bits, the embedding and the output projection take q8_0",
  }),
  kvType: choiceOption({
    flags: ["--kv-type"],
    group: "Model and device",
    choices: KV_TYPES,
    fallback: "auto",
    help:
      "What keys and values are stored in; auto keeps 16 bits (32 for a 32-bit model), q8 and fp8 take half as much",
  }),
};

/** Several GPUs for one model. */
export const devicesOption = {
  devices: deviceListOption({
    flags: ["--devices"],
    group: "Model and device",
    placeholder: "N,N",
    fallbackText: "the first GPU",
    help: "GPUs that share the model, by number, such as 0,1: each gets as many of its KV heads",
  }),
};

/** Where to run. */
export const deviceOptions = {
  device: choiceOption({
    flags: ["--device"],
    group: "Model and device",
    choices: ["auto", "cpu", "cuda"],
    fallback: "auto",
    help: "Device to run on; auto uses CUDA if a GPU is available, else the CPU",
  }),
  threads: countOption({
    flags: ["-t", "--threads"],
    group: "Model and device",
    range: { min: 1, max: 1024 },
    fallback: undefined,
    fallbackText: "all cores",
    help: "CPU threads",
  }),
};
