/** How the native library and the default model are found, by a program that loads Pagesift from a file or from the network. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { fixtureFolder } from "../support/fixture_model.ts";
import { Device } from "../../ffi/device.ts";
import { NativeError, Status } from "../../ffi/errors.ts";
import { ROOT } from "../../scripts/release/native_library.ts";
import { libraryPath } from "../../scripts/release/toolchain.ts";
import { type Finished, runDeno } from "../support/process.ts";

const MODEL = fixtureFolder("llama-f32");

/** Serves mod.ts and all that it imports as one script. */
async function serveLibrary(folder: string): Promise<Deno.HttpServer<Deno.NetAddr>> {
  const bundle = join(folder, "pagesift.js");
  const { code, stderr } = await runDeno(["bundle", "--quiet", "--platform", "deno", "-o", bundle, "mod.ts"], {}, ROOT);
  assertEquals(code, 0, stderr);
  const text = await Deno.readTextFile(bundle);
  const headers = { "content-type": "text/javascript" };
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => new Response(text, { headers }));
}

/** Runs a script that imports `names` from an http: URL; an error ends it with 1 and the message on stdout. */
async function runFromNetwork(names: string, body: string, env: Record<string, string> = {}): Promise<Finished> {
  const folder = await Deno.makeTempDir();
  try {
    await using server = await serveLibrary(folder);
    const { port } = server.addr;
    const script = join(folder, "main.ts");
    await Deno.writeTextFile(
      script,
      `import { ${names} } from "http://127.0.0.1:${port}/pagesift.js";
      try { ${body} } catch (error) { console.log(error.kind ?? error.name, error.message); Deno.exit(1); }`,
    );
    const args = [
      "run",
      "--quiet",
      "--allow-read",
      "--allow-env",
      "--allow-ffi",
      "--no-config",
      "--no-check",
      `--allow-import=127.0.0.1:${port}`,
      script,
    ];
    return await runDeno(args, { DENO_DIR: join(folder, "cache"), PAGESIFT_LIBRARY: "", ...env }, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("Device.open of a module from the network fails and names the option and the variable", async () => {
  const { code, stdout, stderr } = await runFromNetwork("Device", "Device.open();");
  assertEquals(code, 1, stderr);
  assertStringIncludes(stdout, "NativeError");
  assertStringIncludes(stdout, 'option "library"');
  assertStringIncludes(stdout, "PAGESIFT_LIBRARY");
});

Deno.test("Engine.load of a module from the network fails with kind device", async () => {
  const { code, stdout } = await runFromNetwork("Engine", `await Engine.load(${JSON.stringify(MODEL)});`);
  assertEquals(code, 1, stdout);
  assertStringIncludes(stdout, "device The native library");
});

Deno.test("Engine.load of a module from the network generates with the library option", async () => {
  const options = JSON.stringify({ device: "cpu", library: libraryPath("cpu") });
  const { code, stdout, stderr } = await runFromNetwork(
    "Engine",
    `await using engine = await Engine.load(${JSON.stringify(MODEL)}, ${options});
    for await (const piece of engine.generate([1, 2, 3], { maxTokens: 1 })) console.log("token", piece.id);`,
  );
  assertEquals(code, 0, stdout + stderr);
  assertStringIncludes(stdout, "token ");
});

Deno.test("Device.open of a module from the network takes PAGESIFT_LIBRARY", async () => {
  const body = "using device = Device.open(); console.log(device.backend);";
  const { code, stdout } = await runFromNetwork("Device", body, { PAGESIFT_LIBRARY: libraryPath("cpu") });
  assertEquals([code, stdout], [0, "cpu\n"]);
});

Deno.test("defaultModelFolder of a module from the network fails with kind model", async () => {
  const { code, stdout } = await runFromNetwork("defaultModelFolder", "defaultModelFolder();");
  assertEquals(code, 1, stdout);
  assertStringIncludes(stdout, "model No default model");
});

Deno.test("Device.open refuses a library option that names the other build", () => {
  const error = assertThrows(() => Device.open("cuda", { library: libraryPath("cpu") }), NativeError, "library option");
  assertEquals(error.status, Status.NoDevice);
});

Deno.test("Device.open names the path of a library option that does not exist", () => {
  const library = "/nowhere/libpagesift_cpu.so";
  const error = assertThrows(() => Device.open("cpu", { library }), NativeError, library);
  assertEquals(error.status, Status.NoDevice);
});
