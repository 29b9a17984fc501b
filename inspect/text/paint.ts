/** Colour for a text view, or none. */
export interface Paint {
  /** A colour of the 256-colour palette. */
  color(code: number, text: string): string;
  bold(text: string): string;
  dim(text: string): string;
}
