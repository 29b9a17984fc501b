/** Characters of a piece beyond which nothing is cut; those of real vocabularies have 31 at most. */
const MAX_PIECE_LENGTH = 64;

/** Two pieces that may be joined. */
type Merge = [left: string, right: string];

/**
 * The merges of a vocabulary of pieces with scores, best first: each way to cut a piece into two others, in the order of the score of the
 * whole. `isPiece` says which ids take part.
 */
export function mergesOfScores(
  tokens: readonly string[],
  scores: readonly number[],
  isPiece: (id: number) => boolean,
): Merge[] {
  const ids = new Map<string, number>();
  for (const [id, text] of tokens.entries()) if (isPiece(id)) ids.set(text, id);
  const all: { merge: Merge; score: number }[] = [];
  for (const [text, id] of ids) {
    // The texts of the vocabulary: parts of `text` would be strings of their own, half a million for the largest vocabularies.
    for (const { left, right } of cutsOf(text, ids)) {
      all.push({ merge: [tokens[left] ?? "", tokens[right] ?? ""], score: scores[id] ?? 0 });
    }
  }
  const lengths = (a: Merge, b: Merge): number => b[0].length - a[0].length || b[1].length - a[1].length;
  all.sort((a, b) => b.score - a.score || lengths(a.merge, b.merge));
  return all.map(({ merge }) => merge);
}

/** The cuts of a piece into two, by their ids, those into older pieces first. */
function cutsOf(text: string, ids: ReadonlyMap<string, number>): { left: number; right: number }[] {
  const cuts: { left: number; right: number }[] = [];
  if (text.length > MAX_PIECE_LENGTH) return [];
  for (let at = 1; at < text.length; at++) {
    const left = ids.get(text.slice(0, at));
    const right = left === undefined ? undefined : ids.get(text.slice(at));
    if (left !== undefined && right !== undefined) cuts.push({ left, right });
  }
  return cuts.sort((a, b) => a.left - b.left || a.right - b.right);
}
