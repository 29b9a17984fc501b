/** State, controls and events of the report. */
import { Answer } from "./answer.js";
import { element, find } from "./elements.js";
import { cellAt, drawHeat, readColors } from "./heat.js";
import { fragmentOf, stateOf, TABS } from "./link.js";
import { drawMinimap, listenToMinimap, placeFrame } from "./minimap.js";
import { describe, markTop, showPage, showRun, showTop } from "./panel.js";
import { Reader } from "./reader.js";
import { alwaysRead, pageAt, pageText, readReport } from "./recording.js";
import { findAll, MOST_HITS, oneLine } from "./text.js";
import { MEASURES, scaleOf, scopeOf, topPages, valuesOf } from "./values.js";

/** Pages of the enlarged map, and pixels of a layer in either. */
const ZOOM_PAGES = 128;
const LAYER_PIXELS = 14;
const MAP_JUMP = 32;

class Report {
  constructor(data) {
    this.data = data;
    this.colors = readColors();
    this.hits = [];
    this.hit = -1;
    this.reader = new Reader(data, find("scroller"), find("text"), (view) => placeFrame(find("frame"), data, view));
    this.answer = new Answer(data, (steps) => this.chooseSteps(steps));
    this.fillControls();
    this.listen();
    showRun(data, (page, layer, head) => this.change({ page, layer, head, measure: "missed", tab: "text" }, true));
    this.open();
  }

  /** Shows what the fragment of the link names, or else what the command asked for. */
  open() {
    const { data } = this;
    const { measure, step, layer, head } = data.opensWith;
    const steps = step === undefined ? undefined : [step + 1, step + 1];
    const state = location.hash.length > 1
      ? stateOf(location.hash, data)
      : { measure, steps, layer, head, tab: TABS[0], page: undefined };
    const { pages } = valuesOf(data, state.measure, scopeOf(data, state));
    this.change({ ...state, page: state.page ?? topPages(data, pages, 1)[0] ?? 0 }, true);
  }

  /** Chooses the steps of a word, or all, and goes to the page that is strongest there. */
  chooseSteps(steps) {
    const { pages } = valuesOf(this.data, this.state.measure, scopeOf(this.data, { ...this.state, steps }));
    const [strongest] = topPages(this.data, pages, 1);
    this.change({ steps, page: strongest ?? this.state.page }, true);
  }

  /** Changes what is shown; `scrolls` brings the page into view. */
  change(changes, scrolls = false) {
    const before = this.state;
    const state = this.state = { ...before, ...changes };
    const keeps = (...names) => before !== undefined && names.every((name) => before[name] === state[name]);
    this.scope = scopeOf(this.data, state);
    if (!keeps("tab")) this.showTab(state.tab);
    if (!keeps("measure", "steps", "layer", "head")) this.showValues();
    this.reader.choose(state.page);
    if (scrolls && state.tab === "text") this.reader.scrollTo(this.data.pageEnds[state.page - 1] ?? 0);
    this.link = fragmentOf(state);
    showPage(this.data, this.scope, state.page, state.layer, this.link);
    markTop(state.page);
    if (state.tab === "heat") this.drawMaps();
    history.replaceState(null, "", this.link);
    this.announce(`${keeps("steps") ? "" : `${this.answer.describe(state.steps)}: `}${this.pageLine(state.page)}`);
  }

  pageLine(page) {
    return `${describe(this.data, this.scope, page)}. ${oneLine(pageText(this.data, page))}`;
  }

  announce(text) {
    find("live").textContent = text;
  }

  showTab(tab) {
    for (const name of TABS) {
      find(`${name}-view`).hidden = name !== tab;
      find(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
      find(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    }
  }

  /** After the measure, the steps or a filter changed. */
  showValues() {
    const { data, scope, state: { measure, steps, layer, head, page } } = this;
    this.values = valuesOf(data, measure, scope);
    this.levels = scaleOf(data, measure, this.values.pages, "text");
    find("measure").value = measure;
    find("layer").value = String(layer ?? "");
    find("head").value = String(head ?? "");
    this.answer.show(steps);
    find("shown").textContent = [
      this.answer.describe(steps),
      layer === undefined ? `${data.numLayers} layers` : `layer ${layer}`,
      head === undefined ? `${data.heads} KV heads` : `KV head ${head}`,
    ].join(", ");
    showTop(data, measure, this.values.pages, page, (top) => this.change({ page: top, tab: "text" }, true));
    this.paint();
  }

  /** Colors everything. */
  paint() {
    const { data, colors } = this;
    const level = (page) => this.levels(this.values.pages[page]);
    this.reader.shade((page) => alwaysRead(data, page) === "" ? colors.text(level(page)) : "");
    this.drawStrip();
    if (this.state.tab === "heat") this.drawMaps();
  }

  drawStrip() {
    drawMinimap(find("minimap"), this.data, (page) => this.levels(this.values.pages[page]), this.colors, this.hits);
    placeFrame(find("frame"), this.data, this.reader.view());
  }

  zoomRange() {
    const count = Math.min(ZOOM_PAGES, this.data.numPages);
    const first = Math.max(0, Math.min(this.data.numPages - count, this.state.page - Math.floor(count / 2)));
    return [first, first + count];
  }

  drawMaps() {
    const { data, values: { cells }, colors, state } = this;
    const scale = scaleOf(data, state.measure, cells, "map");
    drawHeat(find("whole"), data, cells, scale, colors, [0, data.numPages], state);
    drawHeat(find("zoom"), data, cells, scale, colors, this.zoomRange(), state);
  }

  /** Finds the text of the box and goes to the first hit behind what is in view. */
  search() {
    this.hits = findAll(this.data.text, find("query").value);
    const [start] = this.reader.view();
    const next = this.hits.findIndex(([from]) => from >= start);
    this.goToHit(this.hits.length === 0 ? -1 : Math.max(0, next));
    this.drawStrip();
  }

  goToHit(hit) {
    const { hits } = this;
    this.hit = hits.length === 0 ? -1 : (hit + hits.length) % hits.length;
    if (this.state.tab !== "text") this.change({ tab: "text" });
    this.reader.mark(hits, this.hit);
    const count = hits.length === MOST_HITS ? `${MOST_HITS}+` : String(hits.length);
    const asked = find("query").value.trim() !== "";
    find("hits").textContent = !asked ? "" : this.hit < 0 ? "No hits" : `${this.hit + 1} of ${count}`;
    find("previous-hit").disabled = find("next-hit").disabled = this.hit < 0;
    if (this.hit < 0) return;
    this.reader.scrollTo(hits[this.hit][0]);
    const page = pageAt(this.data, hits[this.hit][0]);
    this.announce(`Hit ${this.hit + 1} of ${count}, page ${page}: ${oneLine(pageText(this.data, page))}`);
  }

  fillControls() {
    const { data } = this;
    const options = (id, entries) => {
      find(id).append(...entries.map(([value, text]) => {
        const option = element("option", text);
        option.value = value;
        return option;
      }));
    };
    options("measure", Object.entries(MEASURES).map(([value, text]) => [value, text.toLowerCase()]));
    options("layer", [["", "all"], ...data.kinds.map((kind, layer) => [String(layer), `${layer}, ${kind}`])]);
    options("head", [["", "all"], ...Array.from({ length: data.heads }, (_, head) => [String(head), String(head)])]);
    const counts = [data.tokenEnds.length, data.numPages].map((count) => count.toLocaleString("en"));
    find("summary").textContent = `${data.model}, ${counts[0]} tokens, ${
      counts[1]
    } pages of ${data.pageSize}, ${data.budgetPages} read per step`;
    find("whole").style.height = find("zoom").style.height = `${data.numLayers * LAYER_PIXELS + 4}px`;
  }

  listen() {
    const number = (text) => text === "" ? undefined : Number(text);
    find("measure").addEventListener("change", ({ target }) => this.change({ measure: target.value }));
    find("layer").addEventListener("change", ({ target }) => this.change({ layer: number(target.value) }));
    find("head").addEventListener("change", ({ target }) => this.change({ head: number(target.value) }));
    this.listenToTabs();
    this.listenToText();
    this.listenToFind();
    for (const [id, range] of [["whole", () => [0, this.data.numPages]], ["zoom", () => this.zoomRange()]]) {
      this.listenToMap(find(id), range);
    }
    listenToMinimap(find("minimap"), this.data, (page) => this.change({ page }, true));
    find("page-link").addEventListener("click", (event) => {
      event.preventDefault();
      const copied = navigator.clipboard?.writeText(location.href) ?? Promise.reject();
      copied.then(() => this.announce("Link copied"), () => this.announce("The link is in the address bar"));
    });
    addEventListener("hashchange", () => location.hash === this.link || this.open());
    addEventListener("resize", () => this.paint());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.colors = readColors();
      this.paint();
    });
    matchMedia("print").addEventListener("change", ({ matches }) => this.print(matches));
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
  }

  /** Paper shows the whole text. */
  print(begins) {
    if (begins) this.reader.fillAll();
    else this.reader.resume();
  }

  listenToTabs() {
    TABS.forEach((tab, at) => {
      const button = find(`tab-${tab}`);
      button.addEventListener("click", () => this.change({ tab }, true));
      button.addEventListener("keydown", ({ key }) => {
        const step = key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0;
        if (step !== 0) find(`tab-${TABS[(at + step + TABS.length) % TABS.length]}`).focus();
      });
    });
  }

  /** A click chooses a page of the text, left and right arrows the page before and after. */
  listenToText() {
    const scroller = find("scroller");
    const pageOf = ({ target }) => target.closest("[data-page]")?.dataset.page;
    scroller.addEventListener("click", (event) => {
      const page = pageOf(event);
      if (page !== undefined && getSelection().isCollapsed) this.change({ page: Number(page) });
    });
    scroller.addEventListener("mousemove", (event) => this.showTip(event, pageOf(event)));
    scroller.addEventListener("mouseleave", () => find("tip").hidden = true);
    scroller.addEventListener("keydown", (event) => {
      const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
      if (step === 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const page = Math.max(0, Math.min(this.data.numPages - 1, this.state.page + step));
      this.change({ page }, !this.reader.shows(page));
    });
  }

  showTip({ clientX, clientY }, page, text = undefined) {
    const tip = find("tip");
    tip.hidden = page === undefined;
    if (page === undefined) return;
    tip.textContent = text ?? describe(this.data, this.scope, Number(page));
    tip.style.left = `${Math.max(0, Math.min(clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(0, Math.min(clientY + 20, innerHeight - tip.offsetHeight - 8))}px`;
  }

  listenToFind() {
    find("query").addEventListener("input", () => this.search());
    find("query").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !event.shiftKey) return;
      event.preventDefault();
      this.goToHit(this.hit - 1);
    });
    find("find").addEventListener("submit", (event) => {
      event.preventDefault();
      this.goToHit(this.hit + 1);
    });
    find("previous-hit").addEventListener("click", () => this.goToHit(this.hit - 1));
    addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.matches("input, select")) return;
      event.preventDefault();
      find("query").focus();
      find("query").select();
    });
  }

  listenToMap(canvas, range) {
    const cell = (event) => cellAt(canvas, this.data, this.values.cells, event, range());
    canvas.addEventListener("click", (event) => this.change({ page: cell(event).page }));
    canvas.addEventListener("mousemove", (event) => {
      const { page, layer } = cell(event);
      const scope = scopeOf(this.data, { ...this.state, layer });
      const text = `Layer ${layer} · ${describe(this.data, scope, page)}. ${oneLine(pageText(this.data, page))}`;
      this.showTip(event, page, text);
    });
    canvas.addEventListener("mouseleave", () => find("tip").hidden = true);
    canvas.addEventListener("keydown", (event) => {
      const { page, layer = 0 } = this.state;
      const [lastPage, lastLayer] = [this.data.numPages - 1, this.data.numLayers - 1];
      const moves = {
        ArrowLeft: { page: page - 1 },
        ArrowRight: { page: page + 1 },
        ArrowUp: { layer: layer - 1 },
        ArrowDown: { layer: layer + 1 },
        PageUp: { page: page - MAP_JUMP },
        PageDown: { page: page + MAP_JUMP },
        Home: { page: 0 },
        End: { page: lastPage },
      };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      if (move.page !== undefined) return this.change({ page: Math.max(0, Math.min(lastPage, move.page)) });
      // Above the first layer all layers are shown again.
      this.change({
        layer: move.layer < 0 ? undefined : Math.min(lastLayer, this.state.layer === undefined ? 0 : move.layer),
      });
    });
  }
}

readReport(find("trace").textContent, find("view").textContent).then((data) => {
  new Report(data);
  document.body.dataset.ready = "true";
  performance.mark("ready");
});
