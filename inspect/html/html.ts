/** The report for a browser: one file that loads nothing, whose input is data and never markup. */
import dataScript from "./client/data.js" with { type: "text" };
import heatScript from "./client/heat.js" with { type: "text" };
import mainScript from "./client/main.js" with { type: "text" };
import panelScript from "./client/panel.js" with { type: "text" };
import styles from "./client/report.css" with { type: "text" };
import { htmlData, type TextTable } from "./data.ts";
import type { Order, Report } from "../report.ts";

/** What stands around the numbers. */
export interface HtmlOptions {
  by: Order;
  /** Labels and texts on top. */
  facts: readonly (readonly [string, string])[];
  tables: readonly TextTable[];
}

/** The whole file. */
export async function renderHtml(report: Report, { by, facts, tables }: HtmlOptions): Promise<string> {
  const script = `"use strict";\n${[dataScript, heatScript, panelScript, mainScript].map(withoutModules).join("\n")}`;
  const data = JSON.stringify(htmlData(report, by, facts, tables)).replaceAll("<", "\\u003c");
  const policy =
    `default-src 'none'; img-src data:; script-src '${await sha256(script)}'; style-src '${await sha256(styles)}'; ` +
    "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'";
  return [
    "<!DOCTYPE html>",
    `<html lang="en"><head><meta charset="utf-8">`,
    `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
    `<meta name="viewport" content="width=device-width, initial-scale=1">`,
    `<link rel="icon" href="data:,">`,
    `<title>Pagesift: which pages mattered</title><style>${styles}</style></head><body>`,
    BODY,
    `<script type="application/json" id="data">${data}</script>`,
    `<script>${script}</script>`,
    "</body></html>",
    "",
  ].join("\n");
}

/** Joined into one script, parts need neither imports nor exports. */
function withoutModules(script: string): string {
  return script.replace(/^import .*;\n/gm, "").replace(/^export /gm, "");
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return `sha256-${new Uint8Array(digest).toBase64()}`;
}

const BODY = `<main>
<h1>Which pages mattered</h1>
<dl id="facts"></dl>
<div class="controls">
<label>Show <select id="measure">
<option value="mass">exact attention mass</option><option value="score">score</option>
<option value="selected">times read</option><option value="missed">mass missed</option>
</select></label>
<label>Step <input id="step" type="range" min="0" value="0"> <output id="step-name" for="step"></output></label>
</div>
<canvas id="whole" tabindex="0" role="application" aria-roledescription="heat map"
 aria-label="All pages from left to right, layers from top to bottom" aria-describedby="keys"></canvas>
<p class="hint" id="keys">Arrow keys move by a page or a layer, Page Up and Page Down by 32 pages, Home and End to the ends.
<span class="key" style="background:var(--sink)"></span> sink pages and <span class="key" style="background:var(--recent)"></span>
recent pages are always read and do not set the colours. Colours of mass are logarithmic over three decades.
A step shows the pages that were read or wanted at it.</p>
<canvas id="zoom" tabindex="0" role="application" aria-roledescription="heat map"
 aria-label="The pages around the chosen one, enlarged" aria-describedby="keys"></canvas>
<p class="hint">Share of attention is not cause: a page may be looked at and change nothing.</p>
<div class="columns">
<section id="panel" aria-labelledby="page-title"></section>
<section id="top" aria-label="Pages in order"></section>
<section id="missed" aria-label="Missed pages"></section>
<section><div id="layers"></div><div id="tables"></div></section>
</div>
<div id="tip" role="tooltip" hidden></div>
<div id="live" aria-live="polite"></div>
</main>`;
