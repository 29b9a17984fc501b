/** The answer as tokens and as words. */

/**
 * The tokens of the answer, `{ text, step }`. The prefill gives token 0 and step n gives token n; a step that ends the answer gives no
 * text. The last token never enters the context, so its text is what the answer has beyond the text of the pages.
 */
export function tokensOf({ text, tokenEnds, promptTokens, steps, answerText }) {
  const start = tokenEnds[promptTokens - 1] ?? 0;
  // A character that the context cuts off stands whole in the answer and belongs to the last token.
  const inContext = text.slice(start).replace(/\ufffd+$/, "");
  const end = start + inContext.length;
  const tokens = Array.from({ length: steps }, (_, token) => {
    const from = token === 0 ? start : tokenEnds[promptTokens + token - 1];
    return text.slice(Math.min(from, end), Math.min(tokenEnds[promptTokens + token], end));
  });
  const last = answerText.startsWith(inContext) ? answerText.slice(inContext.length) : "";
  return [...tokens, last].map((piece, step) => ({ text: piece, step }));
}

/**
 * Tokens joined to words, `{ text, steps: [first, last] }`. A word begins where the answer has one by the rules of Unicode, so text
 * without spaces has words too. White space and punctuation stay with the word before, those of the beginning with the
 * first word.
 */
export function splitWords(tokens) {
  const starts = wordStarts(tokens.map(({ text }) => text).join(""));
  const words = [];
  let [from, reached] = [0, -1];
  for (const { text, step } of tokens) {
    const begin = from + text.length - text.trimStart().length;
    from += text.length;
    const word = text.trim() === "" ? reached : starts.findLastIndex((start) => start <= begin);
    const last = words.at(-1);
    if (last === undefined || (word > reached && last.text.trim() !== "")) words.push({ text, steps: [step, step] });
    else words[words.length - 1] = { text: last.text + text, steps: [last.steps[0], step] };
    reached = Math.max(reached, word);
  }
  return words;
}

/** Where words begin, in characters; punctuation in front of a word is its beginning. */
function wordStarts(text) {
  const starts = [];
  let before = "blank";
  for (const { segment, index, isWordLike } of new Intl.Segmenter(undefined, { granularity: "word" }).segment(text)) {
    const kind = segment.trim() === "" ? "blank" : isWordLike ? "word" : before === "blank" ? "opening" : "closing";
    if (kind === "opening" || (kind === "word" && before !== "opening")) starts.push(index);
    before = kind;
  }
  return starts;
}
