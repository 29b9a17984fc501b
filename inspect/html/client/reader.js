/** The reading view: the document as text, each page shaded. Blocks far from view have a height and no content. */
import { element } from "./elements.js";
import { alwaysRead, pageAt, pageSpan } from "./recording.js";
import { blockEnds, shown } from "./text.js";

/** How far from view a block is filled. */
const MARGIN = "1200px 0px";
/** Where a page comes to stand that is scrolled to, as a share of the view's height. */
const STAND = 0.35;
/** Width of a character and lines per character until a block is measured. */
const CHARACTER_EM = 0.5;

export class Reader {
  #shade = () => "";
  #hits = [];
  #hit = -1;
  #page = -1;

  /** `scroller` scrolls, `column` inside it contains the text; `onView` gets the characters in view `[first, last)`. */
  constructor(data, scroller, column, onView) {
    this.data = data;
    this.scroller = scroller;
    this.column = column;
    this.ends = blockEnds(data.text);
    this.blocks = this.ends.map((_, index) => {
      const block = element("div", undefined, "block");
      block.dataset.index = String(index);
      return block;
    });
    this.filled = new Set();
    this.#estimate();
    column.replaceChildren(...this.blocks);
    this.observer = new IntersectionObserver((entries) => this.#onSight(entries), {
      root: scroller,
      rootMargin: MARGIN,
    });
    for (const block of this.blocks) this.observer.observe(block);
    let asked = false;
    scroller.addEventListener("scroll", () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        onView(this.view());
      });
    }, { passive: true });
    let width = column.clientWidth;
    new ResizeObserver(() => {
      if (this.#isHidden) return;
      if (column.clientWidth !== width) {
        width = column.clientWidth;
        this.#estimate();
      }
      onView(this.view());
    }).observe(column);
  }

  /** Characters of a block. */
  #span(index) {
    return [index === 0 ? 0 : this.ends[index - 1], this.ends[index]];
  }

  /** Gives blocks without content the height that their lines need at this width. */
  #estimate() {
    const style = getComputedStyle(this.column);
    const [size, line] = [parseFloat(style.fontSize), parseFloat(style.lineHeight)];
    const perLine = Math.max(20, Math.floor(this.column.clientWidth / (CHARACTER_EM * size)));
    this.blocks.forEach((block, index) => {
      if (this.filled.has(index)) return;
      let [start, end] = this.#span(index);
      let lines = 0;
      while (start < end) {
        const feed = this.data.text.indexOf("\n", start);
        const stop = feed < 0 || feed >= end ? end : feed + 1;
        lines += Math.max(1, Math.ceil((stop - start) / perLine));
        start = stop;
      }
      block.style.height = `${lines * line}px`;
    });
  }

  /** On another tab blocks have no size, and keep what they have. */
  get #isHidden() {
    return this.scroller.clientHeight === 0;
  }

  #onSight(entries) {
    if (this.#isHidden) return;
    for (const { target, isIntersecting, boundingClientRect } of entries) {
      const index = Number(target.dataset.index);
      if (isIntersecting) this.#fill(index);
      else if (this.filled.delete(index)) {
        target.style.height = `${boundingClientRect.height}px`;
        target.replaceChildren();
      }
    }
  }

  #fill(index) {
    if (this.filled.has(index)) return;
    this.filled.add(index);
    this.blocks[index].style.height = "";
    this.#write(index);
  }

  /** The content of a block: a span for each page, with marks for the hits. */
  #write(index) {
    const [start, end] = this.#span(index);
    const spans = [];
    for (let page = pageAt(this.data, start); page < this.data.numPages; page++) {
      const [first, last] = pageSpan(this.data, page);
      if (first >= end) break;
      const [from, to] = [Math.max(first, start), Math.min(last, end)];
      if (from >= to) continue;
      const span = element("span");
      span.dataset.page = String(page);
      this.#fillSpan(span, from, to);
      this.#paint(span, page);
      spans.push(span);
    }
    this.blocks[index].replaceChildren(...spans);
  }

  #fillSpan(span, from, to) {
    const { text } = this.data;
    let at = from;
    for (let hit = firstHit(this.#hits, from); hit < this.#hits.length && this.#hits[hit][0] < to; hit++) {
      const [start, end] = [Math.max(this.#hits[hit][0], from), Math.min(this.#hits[hit][1], to)];
      if (start > at) span.append(shown(text.slice(at, start)));
      const mark = element("mark", shown(text.slice(start, end)), hit === this.#hit ? "current" : undefined);
      span.append(mark);
      at = end;
    }
    if (at < to) span.append(shown(text.slice(at, to)));
  }

  #paint(span, page) {
    span.style.backgroundColor = this.#shade(page);
    span.className = (alwaysRead(this.data, page) === "" ? "" : "always") + (page === this.#page ? " chosen" : "");
  }

  #paintAll() {
    for (const index of this.filled) {
      for (const span of this.blocks[index].children) this.#paint(span, Number(span.dataset.page));
    }
  }

  /** Shades every page by a function that gives its color. */
  shade(color) {
    this.#shade = color;
    this.#paintAll();
  }

  /** Frames a page. */
  choose(page) {
    this.#page = page;
    this.#paintAll();
  }

  /** Marks hits `[start, end)`, one of them as the current one. */
  mark(hits, current) {
    this.#hits = hits;
    this.#hit = current;
    for (const index of this.filled) this.#write(index);
  }

  /** Scrolls to a character. */
  scrollTo(character) {
    const index = Math.max(0, this.ends.findIndex((end) => end > character));
    this.#fillAround(index);
    const block = this.blocks[index];
    const span = [...block.children].findLast((each) => pageSpan(this.data, Number(each.dataset.page))[0] <= character);
    const box = (block.querySelector("mark.current") ?? span ?? block).getBoundingClientRect();
    const { top, height } = this.scroller.getBoundingClientRect();
    this.scroller.scrollTop += box.top - top - STAND * height;
  }

  /** Fills what will be in view around a block, so that nothing moves once it is there. */
  #fillAround(index) {
    this.#fill(index);
    for (const step of [-1, 1]) {
      let room = 2 * this.scroller.clientHeight;
      for (let at = index + step; room > 0 && at >= 0 && at < this.blocks.length; at += step) {
        this.#fill(at);
        room -= this.blocks[at].offsetHeight;
      }
    }
  }

  /** Whether a page is wholly or partly in view. */
  shows(page) {
    const { top, bottom } = this.scroller.getBoundingClientRect();
    return [...this.column.querySelectorAll(`[data-page="${page}"]`)].some((span) => {
      const box = span.getBoundingClientRect();
      return box.bottom > top && box.top < bottom;
    });
  }

  /** Characters in view `[first, last)`, to a block's line. */
  view() {
    const { top, bottom } = this.scroller.getBoundingClientRect();
    return [this.#characterAt(top), this.#characterAt(bottom)];
  }

  #characterAt(y) {
    let [low, high] = [0, this.blocks.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.blocks[middle].getBoundingClientRect().bottom <= y) low = middle + 1;
      else high = middle;
    }
    const box = this.blocks[low]?.getBoundingClientRect();
    if (!box || box.height === 0) return 0;
    const [start, end] = this.#span(low);
    return start + Math.max(0, Math.min(1, (y - box.top) / box.height)) * (end - start);
  }

  /** Fills every block, for print. */
  fillAll() {
    this.observer.disconnect();
    this.blocks.forEach((_, index) => this.#fill(index));
  }

  /** Goes back to blocks that are filled in view only. */
  resume() {
    for (const block of this.blocks) this.observer.observe(block);
  }
}

/** The first hit that ends behind a character. */
function firstHit(hits, character) {
  let [low, high] = [0, hits.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (hits[middle][1] <= character) low = middle + 1;
    else high = middle;
  }
  return low;
}
