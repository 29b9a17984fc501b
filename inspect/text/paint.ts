/** Colors for a text view; a plain one returns the text as it is. */
export interface Paint {
  /** A color of the 256-color palette. */
  color(code: number, text: string): string;
  bold(text: string): string;
  dim(text: string): string;
}
