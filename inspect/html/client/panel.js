/** Text and tables. Everything of the input goes in as text, never as markup. */
import { cellOf, pageKind, pagePlace, pageText } from "./data.js";

/** Pages shown before and after the one that is looked at. */
const CONTEXT_PAGES = 6;
/** Numbers that a narrow column must not break, with or without a unit. */
const NUMBER = /^[-+<]?[\d.,]+( %)?$/;

export function percent(share) {
  if (share === null || Number.isNaN(share)) return "–";
  return share > 0 && share < 0.0001 ? "<0.01 %" : `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
}

function scoreText(score) {
  return Number.isNaN(score) ? "–" : score.toFixed(2);
}

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** One line of text without line ends or controls, for tables and labels. */
export function oneLine(text) {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]+/g, " ").trim();
}

/** A sentence about a page, for the tooltip and for screen readers. */
export function describe(data, state, page, layer) {
  const cell = cellOf(data, state.step, layer, page);
  const kind = pageKind(data, page);
  const figures = cell === undefined
    ? "not read and not wanted at this step"
    : `mass ${percent(cell.mass)}, score ${scoreText(cell.score)}, read ${cell.selected} times, missed ${cell.missed}`;
  const always = kind === "" ? "" : `, always read (${kind})`;
  return `Page ${page}, layer ${layer}, ${pagePlace(data, page)}${always}: ${figures}. ${
    oneLine(pageText(data, page))
  }`;
}

/** Fills the panel of the page that is looked at. */
export function showPage(panel, data, state) {
  const { page, layer, step } = state;
  const first = page * data.pageSize;
  const title = element("h2", `Page ${page}`);
  title.id = "page-title";
  const kind = pageKind(data, page);
  const where = `${pagePlace(data, page)}, tokens ${first} to ${Math.min(first + data.pageSize, data.tokens) - 1}` +
    (kind === "" ? "" : `, always read (${kind})`);
  const text = element("p", undefined, "text");
  for (let at = page - CONTEXT_PAGES; at <= page + CONTEXT_PAGES; at++) {
    if (at < 0 || at >= data.numPages) continue;
    text.append(element(at === page ? "mark" : "span", pageText(data, at)));
  }
  panel.replaceChildren(title, element("p", where, "where"), text, layerTable(data, step, page, layer));
}

function layerTable(data, step, page, chosen) {
  const rows = data.layers.map((_, layer) => {
    const cell = cellOf(data, step, layer, page);
    if (cell === undefined) return [String(layer), "–", "–", "0", "0"];
    return [String(layer), percent(cell.mass), scoreText(cell.score), String(cell.selected), String(cell.missed)];
  });
  const titles = ["layer", "mass", "score", "read", "missed"];
  const table = tableOf("This page by layer", titles, rows);
  table.tBodies[0].rows[chosen].className = "chosen";
  return table;
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

/** The pages with the highest values that are not always read. */
export function topPages(data, values, count) {
  const pages = [];
  for (let page = 0; page < data.numPages; page++) {
    if (values[page] > 0 && pageKind(data, page) === "") pages.push(page);
  }
  return pages.sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}

export function showTop(place, data, state, values, onPage) {
  const asText = (value) =>
    state.measure === "score"
      ? value.toFixed(2)
      : state.measure === "selected"
      ? (value * data.numLayers).toFixed(0)
      : percent(value);
  const rows = topPages(data, values, 20).map((page) => [
    String(page),
    pagePlace(data, page),
    asText(values[page]),
    oneLine(pageText(data, page)).slice(0, 90),
  ]);
  place.replaceChildren(
    tableOf(`Pages by ${state.measure}`, ["page", "where", state.measure, "text"], rows, 0, onPage),
  );
}
