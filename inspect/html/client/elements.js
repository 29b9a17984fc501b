/** Elements of the page. Text goes in as text, never as markup. */

/** Numbers that a narrow column must not break, with or without a unit. */
const NUMBER = /^[-+<]?[\d.,]+( %)?$/;

export const find = (id) => document.getElementById(id);

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function percent(share) {
  if (share === null || Number.isNaN(share)) return "–";
  return share > 0 && share < 0.0001 ? "<0.01 %" : `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
}

/** A value of a measure as people read it. */
export function valueText(measure, value) {
  return measure === "score" ? value.toFixed(2) : measure === "selected" ? `${Math.round(value)}×` : percent(value);
}

/** A table of texts; `onPage` gets the page in the cell `pageColumn` that is pressed, and its row. */
export function tableOf(caption, titles, rows, pageColumn, onPage) {
  const table = element("table");
  table.append(element("caption", caption));
  const head = table.createTHead().insertRow();
  for (const title of titles) {
    const cell = element("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    row.forEach((text, column) => {
      const cell = line.insertCell();
      if (NUMBER.test(text)) cell.className = "number";
      if (column !== pageColumn) return cell.append(text);
      const button = element("button", text);
      button.type = "button";
      button.addEventListener("click", () => onPage(Number(text), row));
      cell.append(button);
    });
  }
  return table;
}

/**
 * A group of choices of which one is chosen, for the mouse, the keyboard and screen readers. Arrow keys choose the next one, Home and
 * End the ends. Each choice is `{ text, label, disabled }`; `onChoose` gets its place.
 */
export function fillChoices(group, choices, onChoose) {
  group.replaceChildren(...choices.map(({ text, label, disabled }, place) => {
    const choice = element("span", text, "choice");
    choice.setAttribute("role", "radio");
    if (label) choice.setAttribute("aria-label", label);
    if (disabled) {
      choice.setAttribute("aria-disabled", "true");
      choice.title = disabled;
    } else choice.addEventListener("click", () => onChoose(place));
    return choice;
  }));
  group.onkeydown = (event) => {
    const free = choices.map((_, place) => place).filter((place) => !choices[place].disabled);
    const at = free.indexOf([...group.children].indexOf(event.target));
    const moves = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0 };
    const to = event.key === "Enter" || event.key === " "
      ? at
      : event.key === "End"
      ? free.length - 1
      : moves[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const place = free[Math.max(0, Math.min(free.length - 1, to))];
    onChoose(place);
    group.children[place].focus();
  };
}

/** Marks the choice at a place, which the Tab key reaches; without one, the first. */
export function markChoice(group, chosen) {
  const choices = [...group.children];
  const reached = chosen < 0 ? choices.findIndex((choice) => choice.ariaDisabled !== "true") : chosen;
  choices.forEach((choice, place) => {
    choice.setAttribute("aria-checked", String(place === chosen));
    choice.tabIndex = place === reached ? 0 : -1;
  });
}
