import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import type { DownloadProgress } from "../../../engine/hub/find.ts";
import { COMMIT, sha256 } from "../../support/fake_hub.ts";
import { assertRefused, WEIGHTS, weightsBlob, withHub } from "../../support/hub_place.ts";

Deno.test("findModelFolder downloads what a model needs and nothing else", async () => {
  await withHub(async ({ find }) => {
    const names = (await Array.fromAsync(Deno.readDir(await find()), ({ name }) => name)).sort();
    assertEquals(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
  });
});

Deno.test("findModelFolder downloads what a model says of its own sparsity", async () => {
  await withHub(async ({ find }) => {
    assertEquals(await Deno.readTextFile(join(await find(), "sparsity.json")), "{ }");
  }, { "config.json": "{}", "tokenizer.json": "{ }", "sparsity.json": "{ }", "model.safetensors": "aaa" });
});

Deno.test("findModelFolder lays a snapshot out as links to blobs", async () => {
  await withHub(async ({ find, model }) => {
    const folder = await find();
    assertEquals(folder, join(model, "snapshots", COMMIT));
    const link = await Deno.readLink(join(folder, "model.safetensors"));
    assertEquals(link, `../../blobs/${await sha256(WEIGHTS)}`);
    assertEquals(await Deno.readFile(join(folder, "model.safetensors")), WEIGHTS);
    assertEquals(await Deno.readTextFile(join(model, "refs", "main")), COMMIT);
  });
});

Deno.test("findModelFolder completes a snapshot that another program began", async () => {
  await withHub(async ({ find, hub }) => {
    const folder = await find();
    await Deno.remove(join(folder, "tokenizer.json"));
    hub.requests.length = 0;
    await find();
    assertEquals([hub.downloads("tokenizer.json").length, hub.downloads("model.safetensors").length], [0, 0]);
    assert((await Deno.stat(join(folder, "tokenizer.json"))).isFile);
  });
});

Deno.test("findModelFolder downloads the shards that an index names", async () => {
  const shards = { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" };
  const files = {
    "config.json": "{}",
    "tokenizer.json": "{ }",
    "model.safetensors.index.json": JSON.stringify({ weight_map: shards }),
    [shards.a]: "aaa",
    [shards.b]: "bbb",
    "consolidated.safetensors": "the same again",
  };
  await withHub(async ({ find, hub }) => {
    const folder = await find();
    assertEquals(await Deno.readTextFile(join(folder, shards.b)), "bbb");
    assertEquals(hub.downloads("consolidated.safetensors").length, 0);
    await Deno.remove(join(folder, shards.a));
    assertEquals([await find(), await Deno.readTextFile(join(folder, shards.a))], [folder, "aaa"]);
  }, files);
});

Deno.test("findModelFolder downloads whole weights and leaves shards and a stale index where they are", async () => {
  const shard = "model-00001-of-00001.safetensors";
  const files = {
    "config.json": "{}",
    "tokenizer.json": "{ }",
    "model.safetensors": "aaa",
    "model.safetensors.index.json": JSON.stringify({ weight_map: { a: shard, b: "missing.safetensors" } }),
    [shard]: "bbb",
  };
  await withHub(async ({ find, hub }) => {
    const folder = await find();
    assertEquals(await find(), folder);
    assertEquals([hub.downloads(shard).length, hub.downloads("model.safetensors.index.json").length], [0, 0]);
  }, files);
});

Deno.test("findModelFolder refuses a model without safetensors", async () => {
  await withHub(async ({ find }) => {
    await assertRefused(() => find(), "model", '"org/name"', "*.safetensors");
  }, { "config.json": "{}", "pytorch_model.bin": "" });
});

Deno.test("findModelFolder never shows the token to another host", async () => {
  await withHub(async ({ find, hub }) => {
    await find();
    const tokens = (host: string) => new Set(hub.requests.filter((asked) => asked.host === host).map((r) => r.token));
    assertEquals([[...tokens("hub")], [...tokens("store")]], [["Bearer secret"], [null]]);
  });
});

Deno.test("findModelFolder refuses a redirect to a local file", async () => {
  await withHub(async ({ find, hub }) => {
    hub.faults.location = "file:///etc/hostname";
    await assertRefused(() => find(), "network", '"file:///etc/hostname"');
  });
});

Deno.test("findModelFolder refuses endless redirects", async () => {
  await withHub(async ({ find, hub }) => {
    hub.faults.response = () => new Response(null, { status: 302, headers: { location: "/again" } });
    await assertRefused(() => find(), "network", "More than 5 redirects");
    assertEquals(hub.requests.length, 6);
  });
});

Deno.test("findModelFolder refuses an ETag that is no file name", async () => {
  await withHub(async ({ find, hub }) => {
    hub.faults.etag = "../../../evil";
    await assertRefused(() => find(), "network", "No usable ETag", '"model.safetensors"');
  });
});

Deno.test("findModelFolder goes on where a broken download ended", async () => {
  await withHub(async ({ find, hub, model }) => {
    hub.faults.cutAfter = 40_000;
    await assertRefused(() => find(), "network", "run the command again");
    const done = (await Deno.stat(`${await weightsBlob(model)}.incomplete`)).size;
    assert(done > 0 && done <= 40_000);
    hub.faults = {};
    const folder = await find();
    assertEquals(hub.downloads("model.safetensors").at(-1)?.range, `bytes=${done}-`);
    assertEquals(await Deno.readFile(join(folder, "model.safetensors")), WEIGHTS);
  });
});

async function leaveIncomplete(model: string, bytes: Uint8Array): Promise<void> {
  await Deno.mkdir(join(model, "blobs"), { recursive: true });
  await Deno.writeFile(`${await weightsBlob(model)}.incomplete`, bytes);
}

Deno.test("findModelFolder starts anew where the server sends no ranges", async () => {
  await withHub(async ({ find, hub, model }) => {
    await leaveIncomplete(model, WEIGHTS.slice(0, 500));
    hub.faults.ignoreRange = true;
    assertEquals(await Deno.readFile(join(await find(), "model.safetensors")), WEIGHTS);
  });
});

Deno.test("findModelFolder starts anew where more than the file was left", async () => {
  await withHub(async ({ find, hub, model }) => {
    await leaveIncomplete(model, new Uint8Array(WEIGHTS.length + 1));
    assertEquals(await Deno.readFile(join(await find(), "model.safetensors")), WEIGHTS);
    assertEquals(hub.downloads("model.safetensors").at(-1)?.range, null);
  });
});

Deno.test("findModelFolder asks nothing more for a file that was only not renamed", async () => {
  await withHub(async ({ find, hub, model }) => {
    await leaveIncomplete(model, WEIGHTS);
    assertEquals(await Deno.readFile(join(await find(), "model.safetensors")), WEIGHTS);
    assertEquals(hub.downloads("model.safetensors"), []);
  });
});

Deno.test("findModelFolder refuses damaged content and keeps none of it", async () => {
  await withHub(async ({ find, hub, model }) => {
    hub.faults.damaged = true;
    await assertRefused(() => find(), "network", '"model.safetensors" arrived damaged', "SHA-256");
    assertEquals((await Deno.stat(`${await weightsBlob(model)}.incomplete`)).size, 0);
    hub.faults = {};
    assertEquals(await Deno.readFile(join(await find(), "model.safetensors")), WEIGHTS);
  });
});

Deno.test("findModelFolder lets two downloads of one model share the work", async () => {
  await withHub(async ({ find, hub }) => {
    assertEquals(new Set(await Promise.all([find(), find()])).size, 1);
    assertEquals(hub.downloads("model.safetensors").filter(({ host }) => host === "store").length, 1);
  });
});

Deno.test("findModelFolder reports the bytes of each file up to its size", async () => {
  await withHub(async ({ find }) => {
    const last = new Map<string, DownloadProgress>();
    await find({ onProgress: (progress) => last.set(progress.file, progress) });
    const wanted = { file: "model.safetensors", doneBytes: 100_000, totalBytes: 100_000 };
    assertEquals(last.get("model.safetensors"), wanted);
    assert([...last.values()].every(({ doneBytes, totalBytes }) => doneBytes === totalBytes));
  });
});

Deno.test("findModelFolder waits for a slow download as long as something arrives", async () => {
  await withHub(async ({ find, hub }) => {
    hub.faults.slow = { pieces: 10, pauseMs: 120 }; // longer than the limit in all, far shorter each
    const folder = await find({ stallSeconds: 0.8 });
    assertEquals(await Deno.readFile(join(folder, "model.safetensors")), WEIGHTS);
  });
});

Deno.test("findModelFolder gives up when a download stops in the middle, and goes on there", async () => {
  await withHub(async ({ find, hub, model }) => {
    hub.faults.slow = { pieces: 2, pauseMs: 1000 };
    await assertRefused(() => find({ stallSeconds: 0.3 }), "network", "Nothing arrived", "0.3 s");
    assert((await Deno.stat(`${await weightsBlob(model)}.incomplete`)).isFile);
    hub.faults = {};
    assertEquals(await Deno.readFile(join(await find(), "model.safetensors")), WEIGHTS);
  });
});

Deno.test("findModelFolder downloads the map of special tokens", async () => {
  await withHub(async ({ find }) => {
    assertEquals(await Deno.readTextFile(join(await find(), "special_tokens_map.json")), "{ }");
  }, { "config.json": "{}", "tokenizer.json": "{ }", "special_tokens_map.json": "{ }", "model.safetensors": "aaa" });
});
