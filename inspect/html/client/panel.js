/** The page that is looked at, the pages in order, and the tables of the run. */
import { element, find, percent, tableOf, valueText } from "./elements.js";
import { alwaysText } from "./heat.js";
import { pagePlace, pageSpan, pageText } from "./recording.js";
import { oneLine, shown } from "./text.js";
import { figuresOf, MEASURES, topPages } from "./values.js";

/** Pages of the list. */
const MOST_PAGES = 20;
const SNIPPET_CHARACTERS = 60;

/** One line on a page, for the tooltip and for screen readers. */
export function describe(data, scope, page) {
  const { whole, rows } = figuresOf(data, scope, page);
  const always = alwaysText(data, page);
  return [
    `Page ${page}, ${pagePlace(data, page)}`,
    `attention ${percent(whole.mass)}`,
    `read ${whole.selected} of ${rows}`,
    `missed ${percent(whole.missed)}`,
    ...always === "" ? [] : [always],
  ].join(" · ");
}

/** Fills the panel of the page that is looked at; `link` shows it again. */
export function showPage(data, scope, page, layer, link) {
  const { layers, whole, rows } = figuresOf(data, scope, page);
  find("page-title").textContent = `Page ${page}`;
  find("page-link").href = link;
  const [start, end] = [page * data.pageSize, Math.min((page + 1) * data.pageSize, data.tokenEnds.length) - 1];
  const where = [pagePlace(data, page), `tokens ${start} to ${end}`, alwaysText(data, page)];
  find("page-where").textContent = where.filter((part) => part !== "").join(", ");
  find("page-text").textContent = shown(data.text.slice(...pageSpan(data, page)));
  const figures = [
    ["Attention", percent(whole.mass)],
    ["Read", `${whole.selected} of ${rows}`],
    ["Missed", percent(whole.missed)],
    ["Score", whole.score.toFixed(2)],
  ];
  find("page-figures").replaceChildren(
    ...figures.flatMap(([name, value]) => [element("dt", name), element("dd", value)]),
  );
  const table = tableOf(
    "By layer",
    ["layer", "attention", "read", "missed", "score"],
    layers.map(({ mass, score, selected, missed }, at) => [
      ...[String(at), percent(mass), String(selected), percent(missed), score.toFixed(2)],
    ]),
  );
  if (layer !== undefined) table.tBodies[0].rows[layer].className = "chosen";
  find("page-layers").replaceChildren(table);
}

/** The list of pages by the measure; `onPage` gets the page that is pressed. */
export function showTop(data, measure, values, chosen, onPage) {
  const pages = topPages(data, values, MOST_PAGES);
  find("top-title").textContent = `Top pages by ${MEASURES[measure].toLowerCase()}`;
  const most = values[pages[0]] ?? 1;
  const items = pages.map((page) => {
    const button = element("button");
    button.type = "button";
    button.dataset.page = String(page);
    button.setAttribute("aria-current", String(page === chosen));
    button.append(
      element("span", String(page), "page-number"),
      element("span", oneLine(pageText(data, page)).slice(0, SNIPPET_CHARACTERS), "snippet"),
      element("span", valueText(measure, values[page]), "value"),
    );
    button.style.setProperty("--share", `${Math.round(100 * values[page] / most)}%`);
    button.addEventListener("click", () => onPage(page));
    const item = element("li");
    item.append(button);
    return item;
  });
  find("top").replaceChildren(...items);
  find("no-top").hidden = pages.length > 0;
}

/** Marks the page of the list that is looked at. */
export function markTop(chosen) {
  for (const button of find("top").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.page) === chosen));
  }
}

/** The tab of the run: what was run, its layers, missed pages, and the tables that came with it. */
export function showRun(data, onMiss) {
  for (const [label, text] of data.labels) find("facts").append(element("dt", label), element("dd", text));
  const layers = data.fidelity.map(({ recall, kept, best }, layer) => [
    ...[String(layer), data.kinds[layer], percent(recall), percent(kept), percent(best)],
  ]);
  const titles = ["layer", "kind", "page recall", "attention retained", "best possible"];
  const missTitles = ["page", "layer", "head", "missed", "steps", "where", "text"];
  const misses = data.misses.map(([page, layer, head, steps, lost, place, text]) => [
    ...[String(page), String(layer), String(head), percent(lost), String(steps), place, oneLine(text)],
  ]);
  const caption = "Missed: among the pages with the most attention, but not read";
  find("tables").append(
    tableOf("By layer", titles, layers),
    tableOf(caption, missTitles, misses, 0, (page, [, layer, head]) => onMiss(page, Number(layer), Number(head))),
    ...data.tables.map(({ caption: name, titles: heads, rows }) => tableOf(name, heads, rows)),
  );
}
