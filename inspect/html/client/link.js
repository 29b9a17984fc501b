/** What is shown, as the fragment of a link: `#page=431&step=2-4&layer=3&head=0&measure=mass&tab=heat`. */
import { MEASURES } from "./values.js";

export const TABS = ["text", "heat", "run"];

/** The fragment of a state, steps and KV heads as the command line counts them. */
export function fragmentOf({ page, steps, layer, head, measure, tab }) {
  const parts = new URLSearchParams({ page: String(page) });
  if (steps) parts.set("step", steps[0] === steps[1] ? String(steps[0]) : steps.join("-"));
  if (layer !== undefined) parts.set("layer", String(layer));
  if (head !== undefined) parts.set("head", String(head));
  parts.set("measure", measure);
  parts.set("tab", tab);
  return `#${parts}`;
}

/** The state that a fragment names; what it does not name, or names wrongly, stays as it opens. */
export function stateOf(fragment, data) {
  const parts = new URLSearchParams(fragment.slice(1));
  const index = (name, count) => {
    const text = parts.get(name) ?? "";
    return /^\d+$/.test(text) && Number(text) < count ? Number(text) : undefined;
  };
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(parts.get("step") ?? "") ?? [];
  const [from, to] = [Number(first), Number(last)];
  const { measure } = data.opensWith;
  return {
    page: index("page", data.numPages),
    steps: from >= 1 && from <= to && to <= data.steps ? [from, to] : undefined,
    layer: index("layer", data.numLayers),
    head: index("head", data.heads),
    measure: Object.hasOwn(MEASURES, parts.get("measure") ?? "") ? parts.get("measure") : measure,
    tab: TABS.includes(parts.get("tab")) ? parts.get("tab") : TABS[0],
  };
}
