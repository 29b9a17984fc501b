/** The report for a browser: one file that loads nothing. Text of the prompt is data and never markup. */
import answerScript from "./client/answer.js" with { type: "text" };
import elementsScript from "./client/elements.js" with { type: "text" };
import heatScript from "./client/heat.js" with { type: "text" };
import linkScript from "./client/link.js" with { type: "text" };
import mainScript from "./client/main.js" with { type: "text" };
import minimapScript from "./client/minimap.js" with { type: "text" };
import body from "./client/body.html" with { type: "text" };
import panelScript from "./client/panel.js" with { type: "text" };
import readerScript from "./client/reader.js" with { type: "text" };
import recordingScript from "./client/recording.js" with { type: "text" };
import styles from "./client/report.css" with { type: "text" };
import textScript from "./client/text.js" with { type: "text" };
import valuesScript from "./client/values.js" with { type: "text" };
import wordsScript from "./client/words.js" with { type: "text" };
import type { Report } from "../report.ts";
import { htmlData, type HtmlOptions } from "./data.ts";

const SCRIPTS = [
  ...[wordsScript, recordingScript, valuesScript, textScript, elementsScript, linkScript, heatScript, minimapScript],
  ...[readerScript, answerScript, panelScript, mainScript],
];

/** The whole file. */
export async function renderHtml(report: Report, options: HtmlOptions): Promise<string> {
  const script = `"use strict";\n${SCRIPTS.map(withoutModules).join("\n")}`;
  const { trace, view } = await htmlData(report, options);
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
    body,
    `<script type="text/plain" id="trace">${trace}</script>`,
    `<script type="text/plain" id="view">${view}</script>`,
    `<script>${script}</script>`,
    "</body></html>",
    "",
  ].join("\n");
}

/** All parts become one script, which needs neither imports nor exports. */
function withoutModules(script: string): string {
  return script.replace(/^import [^;]*;\n/gm, "").replace(/^export /gm, "");
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return `sha256-${new Uint8Array(digest).toBase64()}`;
}
