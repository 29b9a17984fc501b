/** How the numbers of a weight are stored on the device. */
export type WeightDType = "f32" | "f16" | "bf16" | BlockDType;

/** Formats of blocks along the rows, each with a scale. */
export type BlockDType = "q8_0" | "q4_0" | "q4_1" | "q5_0" | "q5_1" | "q4_k" | "q5_k" | "q6_k" | "f8";

/** A dtype that keys and values are stored in. */
export type PlainDType = Exclude<WeightDType, BlockDType>;

/** Formats that a 16-bit model can be quantised to while it loads. */
export const QUANTIZED_FORMATS = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1"] as const;
/** All of {@link WeightFormat}. */
export const WEIGHT_FORMATS: readonly WeightFormat[] = ["auto", "bf16", ...QUANTIZED_FORMATS];

/** What the matrices of a 16-bit or 32-bit model are stored in on the device; `auto` keeps what the files have. */
export type WeightFormat = "auto" | "bf16" | "q8_0" | "q4_0" | "q4_1" | "q5_0" | "q5_1";

/** Formats by the names that files have for them. */
const DTYPES: Readonly<Record<string, WeightDType>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  Q8_0: "q8_0",
  Q4_0: "q4_0",
  Q4_1: "q4_1",
  Q5_0: "q5_0",
  Q5_1: "q5_1",
  Q4_K: "q4_k",
  Q5_K: "q5_k",
  Q6_K: "q6_k",
  F8: "f8",
};

/** Names of the formats that the operations read, as files have them. */
export const SUPPORTED_FORMATS = Object.keys(DTYPES).join(", ");

/** Numbers of a block of the formats that this program quantises to. */
export const BLOCK_SIZE = 32;
/** Numbers of a block of 8-bit floats. */
export const F8_BLOCK_SIZE = 128;

/** The dtype of a format as files name it; undefined where no operation reads it. */
export function weightDType(name: string): WeightDType | undefined {
  return Object.hasOwn(DTYPES, name) ? DTYPES[name] : undefined;
}

export function isPlain(dtype: WeightDType): dtype is PlainDType {
  return dtype === "f32" || dtype === "f16" || dtype === "bf16";
}

/**
 * The format that a tensor of 16 or 32 bits is stored in where `format` is asked for: vectors and routers stay as they are, so do rows
 * that are no whole blocks, and the tables of all tokens take 8 bits or more.
 */
export function storedDType(
  name: string,
  shape: readonly number[],
  own: PlainDType,
  format: "auto" | WeightDType,
): WeightDType {
  if (format === "auto" || shape.length < 2 || name.endsWith(".router.weight")) return own;
  if (format === "bf16") return "bf16";
  if ((shape[1] ?? 0) % BLOCK_SIZE !== 0) return own;
  return name === "embedding.weight" || name === "logits.weight" ? "q8_0" : format;
}
