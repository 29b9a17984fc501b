/** Reports in headless Chromium. */
import { type Browser, chromium, type Page } from "playwright-core";
import { join, toFileUrl } from "@std/path";
import { findChromium } from "../../scripts/gate/chromium.ts";
import { withFiles } from "../support/folders.ts";
import { withPrompt } from "../cli/inspect_process.ts";

const EXECUTABLE = findChromium();

/** Text that would do something if it were markup. */
export const MARKUP =
  `</script><script>globalThis.ran = 1</script><img src="x" onerror="globalThis.ran = 2"><!-- <b>bold</b> & "quoted" 'text' `;

/** An open report and what the browser said about it. */
export interface OpenReport {
  page: Page;
  /** Console messages of any kind, errors of the page, and requests but for the file itself. */
  complaints: string[];
}

export interface ReportOptions {
  colorScheme?: "light" | "dark";
  viewport?: { width: number; height: number };
  /** Of the address, with its `#`. */
  fragment?: string;
}

/** Defines a test that is counted as ignored where there is no Chromium. */
export function browserTest(name: string, work: () => Promise<void>): void {
  Deno.test({ name, ignore: EXECUTABLE === undefined, sanitizeOps: false, sanitizeResources: false, fn: work });
}

/** Opens a report of HTML text, without a network. */
export async function withHtml(
  html: string,
  work: (report: OpenReport) => Promise<void>,
  options: ReportOptions = {},
): Promise<void> {
  await withFiles({ "report.html": html }, async (folder) => await open(join(folder, "report.html"), work, options));
}

let realReport: Promise<string> | undefined;

/** The report of a real run, whose prompt holds markup; made once. */
function reportOfRun(): Promise<string> {
  return realReport ??= makeReport();
}

async function makeReport(): Promise<string> {
  let html = "";
  await withPrompt(async ({ folder, ask }) => {
    const { code, stderr } = await ask(
      ...["--html", "report.html", "--ablate", "page", "--top", "2", "--compare", "mean,oracle"],
    );
    if (code !== 0) throw new Error(stderr);
    html = Deno.readTextFileSync(join(folder, "report.html"));
  }, { "a.txt": MARKUP.repeat(12) });
  return html;
}

/** Opens the report of a real run. */
export async function withReport(
  work: (report: OpenReport) => Promise<void>,
  options: ReportOptions = {},
): Promise<void> {
  await withHtml(await reportOfRun(), work, options);
}

async function open(
  path: string,
  work: (report: OpenReport) => Promise<void>,
  { fragment = "", ...options }: ReportOptions,
): Promise<void> {
  const browser = await launch();
  try {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, offline: true, ...options });
    const page = await context.newPage();
    const complaints: string[] = [];
    const url = toFileUrl(path).href;
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on(
      "request",
      (request) => request.url().split("#")[0] === url || complaints.push(`request ${request.url().slice(0, 100)}`),
    );
    await page.goto(url + fragment);
    await page.locator("body[data-ready]").waitFor();
    await work({ page, complaints });
  } finally {
    await browser.close();
  }
}

/** A root user's Chromium has no sandbox to start. */
function launch(): Promise<Browser> {
  const args = Deno.uid() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath: EXECUTABLE!, args });
}

/** Text of an element by its id. */
export async function textOf(page: Page, id: string): Promise<string> {
  return await page.locator(`#${id}`).textContent() ?? "";
}

/** Clicks at a share of an element's width and height. */
export async function clickAt(page: Page, id: string, x: number, y: number): Promise<void> {
  const box = (await page.locator(`#${id}`).boundingBox())!;
  await page.mouse.click(box.x + x * box.width, box.y + y * box.height);
}
