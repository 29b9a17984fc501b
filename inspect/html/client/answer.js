/** The answer above the text: words to choose, and the tokens of the chosen word. */
import { fillChoices, find, markChoice } from "./elements.js";
import { oneLine } from "./text.js";

const FROM_PREFILL = "The prefill gives this token, and prefill is not watched";

/** A word or token as it is shown; one without visible text says what it is. */
function label({ text }, isLast) {
  const word = oneLine(text);
  return word !== "" ? word : text !== "" ? "␣" : isLast ? "end of answer" : "…";
}

/** The decode steps that gave a word, `[first, last]`; undefined where only the prefill did. */
function watchedSteps({ steps: [first, last] }) {
  return last === 0 ? undefined : [Math.max(1, first), last];
}

export class Answer {
  constructor(data, onSteps) {
    this.data = data;
    this.onSteps = onSteps;
    const { words } = data;
    const choices = words.map((word, place) => ({
      text: label(word, place === words.length - 1),
      label: wordLabel(word, place === words.length - 1),
      disabled: watchedSteps(word) ? "" : FROM_PREFILL,
    }));
    fillChoices(find("words"), [{ text: "All steps" }, ...choices], (place) => {
      onSteps(place === 0 ? undefined : watchedSteps(words[place - 1]));
    });
    find("words").addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      onSteps(undefined);
      find("words").firstElementChild.focus();
    });
  }

  /** Marks what is chosen. */
  show(steps) {
    const { words, tokens } = this.data;
    const chosen = steps && words.findIndex(({ steps: [first, last] }) => first <= steps[0] && steps[1] <= last);
    markChoice(find("words"), chosen === undefined ? 0 : chosen < 0 ? -1 : chosen + 1);
    const word = words[chosen];
    const parts = word && word.steps[0] < word.steps[1] ? tokens.slice(word.steps[0], word.steps[1] + 1) : [];
    find("token-row").hidden = parts.length === 0;
    const choices = parts.map((part) => ({
      text: label(part, part.step === tokens.length - 1),
      label: wordLabel({ ...part, steps: [part.step, part.step] }),
      disabled: part.step === 0 ? FROM_PREFILL : "",
    }));
    fillChoices(find("tokens"), choices, (place) => this.onSteps([parts[place].step, parts[place].step]));
    markChoice(find("tokens"), parts.findIndex(({ step }) => steps[0] === step && steps[1] === step));
  }

  /** The chosen steps in words. */
  describe(steps) {
    const { steps: count, tokens } = this.data;
    if (!steps) return `All ${count} decode steps`;
    const [first, last] = steps;
    const text = oneLine(tokens.slice(first, last + 1).map((token) => token.text).join(""));
    const which = first === last ? `Step ${first} of ${count}` : `Steps ${first} to ${last} of ${count}`;
    return text === "" ? which : `${which}, “${text}”`;
  }
}

function wordLabel(word, isLast) {
  const steps = watchedSteps(word);
  if (!steps) return `${label(word, isLast)}, from the prefill`;
  return `${label(word, isLast)}, ${steps[0] === steps[1] ? `step ${steps[0]}` : `steps ${steps.join(" to ")}`}`;
}
