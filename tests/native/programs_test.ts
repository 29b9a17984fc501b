/** Small native programs over the CPU library, and over parts of the libraries: control groups, cuBLAS, bounds of products. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname, join } from "@std/path";
import { ROOT } from "../../scripts/release/native_library.ts";
import { findCompiler, libraryPath } from "../../scripts/release/toolchain.ts";

const ON_LINUX = Deno.build.os === "linux";
const HAS_AMX = ON_LINUX && Deno.readTextFileSync("/proc/cpuinfo").includes(" amx_bf16");
const FOLDER = Deno.makeTempDirSync();
addEventListener("unload", () => Deno.removeSync(FOLDER, { recursive: true }));

interface Ran {
  success: boolean;
  stdout: string;
  stderr: string;
}

async function run(command: string, args: string[], env: Record<string, string> = {}): Promise<Ran> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, env, cwd: ROOT }).output();
  return { success, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

async function compile(path: string, args: string[]): Promise<string> {
  const { success, stderr } = await run(await findCompiler(), ["-std=c++17", ...args, "-o", path]);
  assertEquals(success, true, stderr);
  return path;
}

let processors: Promise<string> | undefined;

/** What quota_processors gives for files, by their paths. */
async function quotaOf(files: Record<string, string>): Promise<number> {
  processors ??= compile(join(FOLDER, "processors"), [
    "tests/native/processors.cpp",
    "csrc/cpu/processors.cpp",
    "-pthread",
  ]);
  const root = await Deno.makeTempDir({ dir: FOLDER });
  for (const [path, text] of Object.entries(files)) {
    await Deno.mkdir(dirname(join(root, path)), { recursive: true });
    await Deno.writeTextFile(join(root, path), text);
  }
  return Number((await run(await processors, [root])).stdout);
}

const V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1 = "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
  "34 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

/** Files of version 2, `quotas` by the path of their group. */
function version2(group: string, quotas: Record<string, string>, mounts = V2): Record<string, string> {
  const files = Object.entries(quotas).map(([path, text]) => [`sys/fs/cgroup${path}/cpu.max`, text]);
  return { "proc/self/mountinfo": mounts, "proc/self/cgroup": `0::${group}\n`, ...Object.fromEntries(files) };
}

/** Files of version 1, quota and period by the path of their group. */
function version1(
  group: string,
  quotas: Record<string, [quota: number, period: number]>,
  mounts = V1,
): Record<string, string> {
  const files = Object.entries(quotas).flatMap(([path, [quota, period]]) => [
    [`sys/fs/cgroup/cpu,cpuacct${path}/cpu.cfs_quota_us`, `${quota}\n`],
    [`sys/fs/cgroup/cpu,cpuacct${path}/cpu.cfs_period_us`, `${period}\n`],
  ]);
  const groups = `9:memory:/elsewhere\n4:cpu,cpuacct:${group}\n0::/\n`;
  return { "proc/self/mountinfo": mounts, "proc/self/cgroup": groups, ...Object.fromEntries(files) };
}

for (
  const [what, files, expected] of [
    ["a quota of two processors", version2("/", { "": "200000 100000\n" }), 2],
    ["a quota of one and a half, rounded up", version2("/", { "": "150000 100000\n" }), 2],
    ["a quota below one processor", version2("/", { "": "10000 100000\n" }), 1],
    ["no quota", version2("/", { "": "max 100000\n" }), 0],
    [
      "a nested group's quota",
      version2("/a/b", { "": "max 100000\n", "/a": "max 100000\n", "/a/b": "300000 100000\n" }),
      3,
    ],
    ["a smaller quota of a parent", version2("/a/b", { "/a": "100000 100000\n", "/a/b": "400000 100000\n" }), 1],
    ["a parent's quota where the group has none", version2("/a/b/c", { "/a": "250000 50000\n" }), 5],
    [
      "a neighbour's quota, which does not count",
      version2("/a", { "/ab": "100000 100000\n", "/a": "max 100000\n" }),
      0,
    ],
    [
      "a container that sees only its own part of the tree",
      version2("/docker/1", { "": "200000 100000\n" }, V2.replace("0:28 /", "0:28 /docker/1")),
      2,
    ],
    [
      "a group below the part that is mounted",
      version2("/docker/1/x", { "/x": "100000 100000\n" }, V2.replace("0:28 /", "0:28 /docker/1")),
      1,
    ],
    ["a group outside of the mounted part", version2("/../other", { "": "400000 100000\n" }), 4],
    ["version 1", version1("/a", { "/a": [150000, 100000] }), 2],
    ["version 1, nested", version1("/a/b", { "": [-1, 100000], "/a": [100000, 100000], "/a/b": [-1, 100000] }), 1],
    ["version 1 without a quota", version1("/", { "": [-1, 100000] }), 0],
    ["both versions mounted, the quota in version 1", version1("/", { "": [300000, 100000] }, V1 + V2), 3],
    ["no control groups", {}, 0],
    ["files that are not as expected", version2("/", { "": "many\n" }, `${V2}nonsense\n`), 0],
  ] as const satisfies [string, Record<string, string>, number][]
) {
  Deno.test(`quota_processors reads ${what}`, async () => assertEquals(await quotaOf(files), expected));
}

const THREADS = `import { Device } from ${JSON.stringify(join(ROOT, "ffi", "device.ts"))};
using device = Device.open("cpu");
console.log(device.describe().numThreads);`;
const EVAL = ["eval", "--config", join(ROOT, "deno.json"), THREADS];

async function hasTaskset(): Promise<boolean> {
  return await run("taskset", ["-p", String(Deno.pid)]).then(({ success }) => success, () => false);
}

Deno.test({
  name: "a device has one thread where the affinity mask has one processor",
  ignore: !ON_LINUX || !await hasTaskset(),
  fn: async () => {
    const list = (await run("taskset", ["-cp", String(Deno.pid)])).stdout;
    const first = /: (\d+)/.exec(list)?.[1] ?? "0";
    assertEquals((await run("taskset", ["-c", first, Deno.execPath(), ...EVAL])).stdout, "1\n");
  },
});

/** A control group of version 1 with half a processor, or undefined where none can be made. */
function makeGroup(): string | undefined {
  const group = `/sys/fs/cgroup/cpu/pagesift_test_${Deno.pid}`;
  try {
    Deno.mkdirSync(group);
    Deno.writeTextFileSync(`${group}/cpu.cfs_quota_us`, "50000");
    return group;
  } catch {
    return undefined;
  }
}

Deno.test("a device has one thread in a control group with half a processor", async (test) => {
  const group = ON_LINUX ? makeGroup() : undefined;
  if (group === undefined) {
    return void await test.step({ name: "no group can be made here", ignore: true, fn: () => {} });
  }
  try {
    const join = `echo $$ > ${group}/cgroup.procs && exec "$@"`;
    assertEquals((await run("sh", ["-c", join, "sh", Deno.execPath(), ...EVAL])).stdout, "1\n");
  } finally {
    Deno.removeSync(group);
  }
});

/** What the loader of cuBLAS says where libraries of some versions lie under the names given. */
async function openCublas(libraries: Record<string, number | undefined>): Promise<string> {
  const program = await compile(join(FOLDER, "cublas_library"), [
    "tests/native/cublas_library.cpp",
    "csrc/cuda/cublas_library.cpp",
    "-ldl",
  ]);
  const folder = await Deno.makeTempDir({ dir: FOLDER });
  for (const [name, version] of Object.entries(libraries)) {
    const source = join(folder, "source.cpp");
    const property = `extern "C" int cublasGetProperty(int, int *value) { return *value = ${version}, 0; }`;
    await Deno.writeTextFile(source, version === undefined ? "" : property);
    await compile(join(folder, name), ["-shared", "-fPIC", source]);
  }
  return (await run(program, [], { LD_LIBRARY_PATH: folder })).stdout;
}

Deno.test({
  name: "cuBLAS 13 is opened, under either name",
  ignore: !ON_LINUX,
  fn: async () => {
    assertEquals(await openCublas({ "libcublas.so.13": 13 }), "opened");
    assertEquals(await openCublas({ "libcublas.so": 13 }), "opened");
  },
});

Deno.test({
  name: "cuBLAS 12 is refused as not supported, with its version",
  ignore: !ON_LINUX,
  fn: async () => {
    const said = await openCublas({ "libcublas.so.12": 12, "libcublas.so.13": 12, "libcublas.so": 12 });
    assertMatch(said, /^4 .*needs cuBLAS 13.*version 12/);
  },
});

Deno.test({
  name: "a cuBLAS without a version is refused",
  ignore: !ON_LINUX,
  fn: async () => assertStringIncludes(await openCublas({ "libcublas.so.13": undefined }), "an unknown version"),
});

/** What the loader of NCCL says where a library of this version, as NCCL numbers them, is found; undefined: none is. */
async function openNccl(version: number | undefined, env: Record<string, string> = {}): Promise<string> {
  const program = await compile(join(FOLDER, "nccl_library"), [
    "tests/native/nccl_library.cpp",
    "csrc/cuda/nccl_library.cpp",
    "-ldl",
  ]);
  const folder = await Deno.makeTempDir({ dir: FOLDER });
  if (version !== undefined) {
    const source = join(folder, "source.cpp");
    await Deno.writeTextFile(
      source,
      `extern "C" int ncclGetVersion(int *version) { return *version = ${version}, 0; }`,
    );
    await compile(join(folder, "libnccl.so.2"), ["-shared", "-fPIC", source]);
  }
  return (await run(program, [], { LD_LIBRARY_PATH: folder, ...env })).stdout;
}

for (const version of [2804, 22703]) {
  Deno.test({
    name: `NCCL 2 is opened, without multicast: ${version}`,
    ignore: !ON_LINUX,
    fn: async () => assertEquals(await openNccl(version), "opened 0"),
  });
}

Deno.test({
  name: "NCCL_NVLS_ENABLE is kept where it is set",
  ignore: !ON_LINUX,
  fn: async () => assertEquals(await openNccl(22703, { NCCL_NVLS_ENABLE: "1" }), "opened 1"),
});

Deno.test({
  name: "NCCL 3 is refused as not supported, with its version",
  ignore: !ON_LINUX,
  fn: async () => assertMatch(await openNccl(30000), /^4 .*requires NCCL 2.*version 3/),
});

Deno.test({
  name: "NCCL that is missing is refused, with its name",
  ignore: !ON_LINUX,
  fn: async () => assertMatch(await openNccl(undefined), /^4 .*libnccl.so.2/),
});

Deno.test("products of weights at the end of memory read nothing behind them, and point to nothing behind them", async () => {
  const flags = ["-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-pthread", "-Wno-psabi"];
  const program = await compile(join(FOLDER, "matmul_bounds"), [
    ...flags,
    "tests/native/matmul_bounds.cpp",
    "csrc/cpu/thread_pool.cpp",
  ]);
  const { stdout, stderr } = await run(program, []);
  assertEquals([stdout, stderr], ["products 504", ""]);
});

for (
  const [program, what] of [
    ["products", "products with weights of every format are near sums in f64"],
    ["attention", "attention over pages of every type is near a softmax in f64"],
    ["scoring", "page statistics and scores are near their definitions in f64"],
  ] as const
) {
  Deno.test(what, async () => {
    const path = await compile(join(FOLDER, program), ["-O1", `tests/native/${program}.cpp`, libraryPath("cpu")]);
    const { stdout, stderr } = await run(path, []);
    assertEquals(stderr, "");
    assertMatch(stdout, /^(products|caches) \d+ with /);
  });
}

Deno.test({
  name: "a device works without AMX where the system refuses it",
  ignore: !HAS_AMX,
  fn: async () => {
    const program = await compile(join(FOLDER, "refused_amx"), ["tests/native/refused_amx.cpp", libraryPath("cpu")]);
    const env = { PAGESIFT_ISA: "" };
    const usual = (await run(program, [], env)).stdout; // not AMX in a sandbox that refuses it to all
    assertEquals((await run(program, ["refused"], env)).stdout, usual === "amx" ? "avx512vnni" : usual);
  },
});
