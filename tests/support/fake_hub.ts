/** What the fake Hub was asked. */
export interface HubRequest {
  method: string;
  path: string;
  /** `hub`, or `store` for the other host that large files are redirected to. */
  host: "hub" | "store";
  token: string | null;
  range: string | null;
}

/** Faults that a test switches on; each is looked at for every request. */
export interface HubFaults {
  /** Answers every request with this. */
  response?: () => Response | Promise<Response>;
  /** Bytes after which a longer body breaks off. */
  cutAfter?: number;
  /** Sends a body of the store in this many pieces, each after a pause. */
  slow?: { pieces: number; pauseMs: number };
  /** Sends other bytes than promised. */
  damaged?: boolean;
  ignoreRange?: boolean;
  /** Where the Hub sends large files instead of to the store. */
  location?: string;
  etag?: string;
}

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** A Hub on this machine with one model, `org/name`, whose `*.safetensors` files lie on another origin. */
export class FakeHub implements AsyncDisposable {
  readonly requests: HubRequest[] = [];
  faults: HubFaults = {};
  readonly #files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #store: Deno.HttpServer<Deno.NetAddr>;

  constructor(files: Readonly<Record<string, string | Uint8Array>>) {
    const bytes = (content: string | Uint8Array) =>
      typeof content === "string" ? new TextEncoder().encode(content) : new Uint8Array(content);
    this.#files = Object.fromEntries(Object.entries(files).map(([name, content]) => [name, bytes(content)]));
    const options = { port: 0, hostname: "127.0.0.1", onListen: () => {} };
    this.#hub = Deno.serve(options, (request) => this.#answer(request, "hub"));
    this.#store = Deno.serve(options, (request) => this.#answer(request, "store"));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  get storeEndpoint(): string {
    return `http://127.0.0.1:${this.#store.addr.port}`;
  }

  /** Requests for the content of a file, in order. */
  downloads(file: string): HubRequest[] {
    return this.requests.filter(({ method, path }) => method === "GET" && path.endsWith(`/${file}`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#hub.shutdown(), this.#store.shutdown()]);
  }

  async #answer(request: Request, host: "hub" | "store"): Promise<Response> {
    const { pathname: path } = new URL(request.url);
    const [token, range] = [request.headers.get("authorization"), request.headers.get("range")];
    this.requests.push({ method: request.method, path, host, token, range });
    if (this.faults.response) return await this.faults.response();
    if (path.startsWith("/api/models/org/name/revision/")) return this.#describe();
    const name = path.split(`/${COMMIT}/`).at(-1)!;
    const content = this.#files[name];
    if (content === undefined || !path.includes(COMMIT)) return new Response("no such file", { status: 404 });
    if (host === "store" && this.faults.slow) return new Response(inPieces(content, this.faults.slow));
    if (host === "store" || !name.endsWith(".safetensors")) return this.#send(content, range);
    return await this.#redirect(content, path);
  }

  #describe(): Response {
    const siblings = Object.keys(this.#files).map((rfilename) => ({ rfilename }));
    return Response.json({ id: "org/name", sha: COMMIT, siblings });
  }

  async #redirect(content: Uint8Array<ArrayBuffer>, path: string): Promise<Response> {
    const headers = {
      location: this.faults.location ?? `${this.storeEndpoint}${path}`,
      "x-linked-etag": `"${this.faults.etag ?? await sha256(content)}"`,
      "x-linked-size": String(content.length),
    };
    return new Response(null, { status: 302, headers });
  }

  #send(content: Uint8Array<ArrayBuffer>, range: string | null): Response {
    const { damaged, ignoreRange } = this.faults;
    const cutAfter = content.length > (this.faults.cutAfter ?? Infinity) ? this.faults.cutAfter : undefined;
    const from = ignoreRange ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    let body = content.slice(from);
    if (damaged) body = body.map((byte) => byte ^ 1);
    const headers: Record<string, string> = { etag: `W/"${content.length}-plain"` };
    if (from > 0) headers["content-range"] = `bytes ${from}-${content.length - 1}/${content.length}`;
    const status = from > 0 ? 206 : 200;
    if (cutAfter === undefined) return new Response(body, { status, headers });
    headers["content-length"] = String(body.length); // a promise that the connection then breaks
    return new Response(new Blob([body.slice(0, cutAfter)]).stream(), { status, headers });
  }
}

/** The content in equal pieces, each after a pause. */
function inPieces(
  content: Uint8Array<ArrayBuffer>,
  { pieces, pauseMs }: { pieces: number; pauseMs: number },
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const size = Math.ceil(content.length / pieces);
  let done = 0;
  return new ReadableStream({
    async pull(controller): Promise<void> {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      controller.enqueue(content.slice(done, done += size));
      if (done >= content.length) controller.close();
    },
  });
}

/** SHA-256 in hex. */
export async function sha256(content: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", content)).toHex();
}
