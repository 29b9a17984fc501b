/** The strip beside the text: where in the document the measure is high, what is in view, and where hits are. */
import { alwaysRead, pageAt } from "./recording.js";

const HIT_PIXELS = 2;

/** Draws the strip; `level` gives 0 .. 1 by page, `view` and `hits` are characters. */
export function drawMinimap(canvas, data, level, colors, hits) {
  const ratio = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  const length = data.text.length;
  const row = (character) => Math.floor(character / length * canvas.height);
  const least = Math.max(1, Math.round(2 * ratio));
  const levels = new Float32Array(canvas.height);
  const fixed = new Uint8Array(canvas.height);
  for (let page = 0; page < data.numPages; page++) {
    const [from, to] = [row(page === 0 ? 0 : data.pageEnds[page - 1]), row(data.pageEnds[page])];
    const always = alwaysRead(data, page) !== "";
    for (let at = from; at < Math.min(canvas.height, Math.max(to, from + least)); at++) {
      if (always) fixed[at] = 1;
      else levels[at] = Math.max(levels[at], level(page));
    }
  }
  for (let at = 0; at < canvas.height; at++) {
    context.fillStyle = levels[at] > 0 ? colors.map(levels[at]) : fixed[at] ? colors.fixed : colors.map(0);
    context.fillRect(0, at, canvas.width, 1);
  }
  context.fillStyle = colors.ink;
  for (const [start] of hits) context.fillRect(0, row(start), canvas.width / 3, HIT_PIXELS * ratio);
}

/** Puts the frame of the strip around the characters in view. */
export function placeFrame(frame, data, [first, last]) {
  const length = Math.max(1, data.text.length);
  frame.style.top = `${100 * first / length}%`;
  frame.style.height = `${100 * (last - first) / length}%`;
}

/** Calls `onPage` with the page where the pointer presses the strip. */
export function listenToMinimap(canvas, data, onPage) {
  const go = (event) => {
    const { top, height } = canvas.getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (event.clientY - top) / height));
    onPage(pageAt(data, Math.floor(share * data.text.length)));
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    go(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons === 1) go(event);
  });
}
