import { PagesiftError, reasonOf } from "../errors.ts";
import { isJsonObject, shorten } from "../folder/json_file.ts";
import { isCommit } from "./cache.ts";
import type { StallGuard } from "./stall_guard.ts";

/** Where and as whom to ask. */
export interface HubAccess {
  /** Base of all addresses, http or https. */
  readonly endpoint: string;
  /** Sent to the endpoint's own host only. */
  readonly token: string | undefined;
  readonly fetch: typeof fetch;
}

/** What the Hub says about a revision of a model. */
export interface HubModel {
  readonly commit: string;
  readonly files: readonly string[];
}

/** What the Hub says about a file. */
export interface HubFile {
  /** Names the content: SHA-256 in hex for large files. */
  readonly etag: string;
  readonly bytes: number | undefined;
}

const MAX_REDIRECTS = 5;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** Requests to the Hub about one model. Throws "network" errors that name the model and the next step. */
export class HubClient {
  readonly #access: HubAccess;
  readonly #endpoint: URL;

  constructor(access: HubAccess, readonly id: string) {
    this.#access = access;
    this.#endpoint = parseEndpoint(access.endpoint);
  }

  async model(revision: string, guard: StallGuard): Promise<HubModel> {
    const url = this.#url(`api/models/${this.id}/revision/${encodeURIComponent(revision)}`);
    const response = await this.#request(url, { guard });
    await this.#refuseFailure(response, `model "${this.id}" at revision "${revision}"`);
    const body: unknown = await response.json().catch(() => undefined);
    guard.throwIfAborted();
    const { sha, siblings } = isJsonObject(body) ? body : {};
    if (typeof sha !== "string" || !isCommit(sha) || !Array.isArray(siblings)) {
      throw networkError(`No description of model "${this.id}" came from "${url.host}"; check HF_ENDPOINT`);
    }
    const files = siblings.map((sibling) => isJsonObject(sibling) ? sibling["rfilename"] : undefined);
    return { commit: sha, files: files.filter((file) => typeof file === "string") };
  }

  async file(commit: string, name: string, guard: StallGuard): Promise<HubFile> {
    // The Hub's own response has the size and hash of a large file, before it redirects the client.
    const response = await this.#request(this.#fileUrl(commit, name), { guard, method: "HEAD", sameOrigin: true });
    await response.body?.cancel();
    const redirected = REDIRECTS.has(response.status);
    if (!redirected) await this.#refuseFailure(response, `file "${name}" of model "${this.id}"`);
    // What else a redirect says is about itself.
    const read = (linked: string, own: string) =>
      response.headers.get(linked) ?? (redirected ? null : response.headers.get(own));
    const etag = (read("x-linked-etag", "etag") ?? "").replace(/^W\//, "").replaceAll('"', "");
    // The tag becomes a file name.
    if (!/^[\w-][\w.-]{0,127}$/.test(etag)) {
      throw networkError(`No usable ETag came with "${name}" of model "${this.id}"; check HF_ENDPOINT`);
    }
    return { etag, bytes: parseBytes(read("x-linked-size", "content-length")) };
  }

  /** The content of a file from `fromByte` on if the server supports it (status 206), else all of it (status 200). */
  async open(commit: string, name: string, fromByte: number, guard: StallGuard): Promise<Response> {
    const headers: Record<string, string> = fromByte > 0 ? { range: `bytes=${fromByte}-` } : {};
    const response = await this.#request(this.#fileUrl(commit, name), { guard, headers });
    await this.#refuseFailure(response, `file "${name}" of model "${this.id}"`);
    return response;
  }

  /** What a failed read of a body should be reported as. */
  failure(error: unknown, guard: StallGuard, from: string): unknown {
    guard.throwIfAborted();
    if (!(error instanceof TypeError)) return error;
    const cause = error.cause instanceof Error ? error.cause : error;
    const reason = shorten(reasonOf(cause).replace(/ for url \([^)]*\)/, ""), 200);
    return networkError(`Cannot read from "${from}": ${reason}; check the network and run the command again`, error);
  }

  #fileUrl(commit: string, name: string): URL {
    const path = name.split("/").map(encodeURIComponent).join("/");
    return this.#url(`${this.id}/resolve/${commit}/${path}`);
  }

  #url(path: string): URL {
    return new URL(`${this.#endpoint.href.replace(/\/+$/, "")}/${path}`);
  }

  async #request(start: URL, options: RequestOptions): Promise<Response> {
    let url = start;
    let trusted = true;
    for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
      // Once a redirect has left the endpoint, nothing after it may see the token.
      trusted &&= url.origin === this.#endpoint.origin;
      const response = await this.#send(url, trusted, options);
      const location = response.headers.get("location");
      if (!REDIRECTS.has(response.status) || location === null) return response;
      const next = parseLocation(location, url);
      if (options.sameOrigin && next.origin !== url.origin) return response;
      await response.body?.cancel();
      url = next;
    }
    throw networkError(`More than ${MAX_REDIRECTS} redirects from "${start.host}"; check HF_ENDPOINT`);
  }

  async #send(url: URL, trusted: boolean, { guard, method = "GET", headers = {} }: RequestOptions): Promise<Response> {
    const { token, fetch } = this.#access;
    const authorization: Record<string, string> = trusted && token ? { authorization: `Bearer ${token}` } : {};
    try {
      return await fetch(url, {
        method,
        // Sizes and ranges count bytes of the file, so it must not come compressed.
        headers: { ...headers, ...authorization, "accept-encoding": "identity", "user-agent": "pagesift" },
        redirect: "manual",
        signal: guard.signal,
      });
    } catch (error) {
      throw this.failure(error, guard, url.host);
    }
  }

  async #refuseFailure(response: Response, what: string): Promise<void> {
    if (response.ok) return;
    await response.body?.cancel();
    throw networkError(`No access to ${what} (status ${response.status}): ${statusAdvice(response)}`);
  }
}

interface RequestOptions {
  guard: StallGuard;
  method?: "GET" | "HEAD";
  headers?: Record<string, string>;
  /** Returns a redirect to another host instead of following it. */
  sameOrigin?: boolean;
}

function statusAdvice({ status, headers }: Response): string {
  if (status === 404) return "check the name and the revision";
  if (status === 401 || status === 403) {
    return "check the name, accept the model's terms on its page, or set HF_TOKEN to a token that may read it";
  }
  if (status !== 429) return "the server failed, try again later";
  const wait = headers.get("retry-after");
  return `too many requests, try again ${/^\d+$/.test(wait ?? "") ? `in ${wait} s` : "later"} or set HF_TOKEN`;
}

function parseEndpoint(endpoint: string): URL {
  const url = URL.parse(endpoint);
  if (url !== null && /^https?:$/.test(url.protocol)) return url;
  throw networkError(`HF_ENDPOINT must be an http or https address, found "${shorten(endpoint)}"`);
}

/** `fetch` also reads local files, so a redirect may only lead to the web. */
function parseLocation(location: string, base: URL): URL {
  const url = URL.parse(location, base);
  if (url !== null && /^https?:$/.test(url.protocol)) return url;
  throw networkError(`Redirect from "${base.host}" leads to "${shorten(location)}", expected an http or https address`);
}

function parseBytes(text: string | null): number | undefined {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function networkError(message: string, cause?: unknown): PagesiftError {
  return new PagesiftError("network", message, { cause });
}
