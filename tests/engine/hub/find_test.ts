import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { findModelFolder } from "../../../engine/hub/find.ts";
import { COMMIT, FakeHub } from "../../support/fake_hub.ts";
import { withFiles } from "../../support/folders.ts";
import { assertRefused, withHub } from "../../support/hub_place.ts";
import { runDeno } from "../../support/process.ts";

Deno.test("findModelFolder takes a folder as it is", async () => {
  await withFiles({}, async (folder) => assertEquals(await findModelFolder(folder, { env: {} }), folder));
});

for (
  const name of ["nowhere", "./nowhere/model", "/nowhere/model", "a/b/c", "../no-such-folder", "org/..", "a--b/c", ""]
) {
  Deno.test(`findModelFolder refuses "${name}", which is no folder and no Hub name`, async () => {
    await assertRefused(() => findModelFolder(name, { env: {} }), "model", "No model folder", '"org/name"');
  });
}

Deno.test("findModelFolder takes a GGUF file as it is", async () => {
  await withFiles({ "m.gguf": "" }, async (folder) => {
    const file = join(folder, "m.gguf");
    assertEquals(await findModelFolder(file, { env: {} }), file);
  });
});

Deno.test("findModelFolder refuses a file that is no GGUF file", async () => {
  await withFiles({ f: "" }, async (folder) => {
    await assertRefused(() => findModelFolder(join(folder, "f"), { env: {} }), "model", "is not a folder");
  });
});

Deno.test("findModelFolder reads the environment of the process by default", async () => {
  const url = new URL("../../../engine/hub/find.ts", import.meta.url);
  const code = `import { findModelFolder } from ${JSON.stringify(url)};
    await findModelFolder("org/name").catch((error) => console.log(error.kind, error.message));`;
  const config = fromFileUrl(new URL("../../../deno.json", import.meta.url));
  const env = { HF_HUB_CACHE: "/nowhere/hub", HF_HUB_OFFLINE: "1" };
  const { stdout, stderr } = await runDeno(["eval", "--config", config, code], env);
  assertMatch(stdout, /^network .*"\/nowhere\/hub"/, stderr);
});

Deno.test("findModelFolder refuses a revision that leaves the cache", async () => {
  await withHub(async ({ find }) => {
    await assertRefused(() => find({ revision: "../../x" }), "usage", '"../../x"');
  });
});

Deno.test("findModelFolder asks the network nothing about a model that is cached", async () => {
  await withHub(async ({ find, hub }) => {
    const folder = await find();
    hub.requests.length = 0;
    assertEquals([await find(), await find({ revision: COMMIT }), hub.requests.length], [folder, folder, 0]);
  });
});

for (
  const [status, ...parts] of [
    [401, "accept the model's terms", "HF_TOKEN"],
    [403, "accept the model's terms", "HF_TOKEN"],
    [404, "check the name and the revision"],
    [429, "try again in 30 s"],
    [503, "try again later"],
  ] as const
) {
  Deno.test(`findModelFolder says what to do about status ${status}`, async () => {
    await withHub(async ({ find, hub }) => {
      hub.faults.response = () => new Response("no", { status, headers: { "retry-after": "30" } });
      await assertRefused(() => find(), "network", '"org/name"', String(status), ...parts);
    });
  });
}

Deno.test("findModelFolder refuses an answer that is no model", async () => {
  await withHub(async ({ find, hub }) => {
    hub.faults.response = () => new Response("<html>Log in to the hotel's network</html>");
    await assertRefused(() => find(), "network", "No description of model", "HF_ENDPOINT");
  });
});

/** An address of this machine where nobody listens any more. */
async function closedEndpoint(): Promise<string> {
  await using hub = new FakeHub({});
  return hub.endpoint;
}

Deno.test("findModelFolder says that there is no network", async () => {
  await withHub(async ({ find }) => {
    const env = { HF_ENDPOINT: await closedEndpoint() };
    await assertRefused(() => find({ env }), "network", '"127.0.0.1:', "Connection refused", "check the network");
  });
});

Deno.test("findModelFolder refuses an endpoint that is no web address", async () => {
  await withHub(async ({ find }) => {
    await assertRefused(() => find({ env: { HF_ENDPOINT: "ftp://x" } }), "network", "HF_ENDPOINT", '"ftp://x"');
  });
});

Deno.test("findModelFolder gives up when nothing arrives", async () => {
  await withHub(async ({ find, hub }) => {
    const { promise, resolve } = Promise.withResolvers<Response>();
    hub.faults.response = () => promise;
    await assertRefused(() => find({ stallSeconds: 0.05 }), "network", "Nothing arrived", "0.05 s");
    resolve(new Response());
  });
});

Deno.test("findModelFolder ends with the signal's reason", async () => {
  await withHub(async ({ find }) => {
    const controller = new AbortController();
    const onProgress = () => controller.abort();
    const error = await assertRejects(() => find({ signal: controller.signal, onProgress }), DOMException);
    assertEquals(error.name, "AbortError");
  });
});

for (const [how, options] of [["option", { offline: true }], ["variable", { env: { HF_HUB_OFFLINE: "1" } }]] as const) {
  Deno.test(`findModelFolder downloads nothing under the offline ${how}`, async () => {
    await withHub(async ({ find, hub }) => {
      await assertRefused(() => find(options), "network", "downloads are off", "hf download org/name");
      assertEquals(hub.requests, []);
    });
  });
}

Deno.test("findModelFolder finds a cached model under the offline option", async () => {
  await withHub(async ({ find }) => {
    const folder = await find();
    assertEquals(await find({ offline: true }), folder);
  });
});

Deno.test("findModelFolder looks below HF_HOME and HOME", async () => {
  await withHub(async ({ find, cache }) => {
    const caches = [{ HF_HUB_CACHE: "", HF_HOME: join(cache, "a") }, { HF_HUB_CACHE: "", HOME: join(cache, "b") }];
    const folders = [await find({ env: caches[0]! }), await find({ env: caches[1]! })];
    const places = folders.map((folder) => folder.slice(cache.length).split("/models--")[0]);
    assertEquals(places, ["/a/hub", "/b/.cache/huggingface/hub"]);
  });
});

Deno.test("findModelFolder says when the cache cannot be written", async () => {
  await withFiles({ cache: "a file" }, async (folder) => {
    await withHub(async ({ find }) => {
      const env = { HF_HUB_CACHE: join(folder, "cache") };
      await assertRefused(() => find({ env }), "network", "Cannot use the model cache", "HF_HUB_CACHE");
    });
  });
});
