/** What a reader needs to reproduce the numbers. */
import { fromFileUrl } from "@std/path";
import denoConfig from "../deno.json" with { type: "json" };
import type { DeviceInfo } from "../ffi/structs.ts";
import { definedOnly, type Provenance } from "./row.ts";

const ROOT = fromFileUrl(new URL("..", import.meta.url));

/** Facts that only the caller knows. */
export interface Circumstances {
  command: string;
  model?: string;
  modelSha256?: string;
  notes?: readonly string[];
}

/** Gathers facts about the machine and the checkout. Never fails: what cannot be read is left out. */
export async function provenanceOf(device: DeviceInfo, facts: Circumstances): Promise<Provenance> {
  const { backend, name, numThreads } = device;
  return definedOnly<Provenance>({
    version: denoConfig.version,
    commit: Deno.env.get("PAGESIFT_COMMIT") || await commit(),
    device: backend === "cpu" ? cpuName() : name,
    backend,
    threads: numThreads,
    instruction_set: backend === "cpu" ? name : undefined,
    driver: backend === "cuda" ? driverVersion() : undefined,
    model: facts.model,
    model_sha256: facts.modelSha256,
    command: facts.command,
    date: new Date().toISOString().slice(0, 16) + "Z",
    notes: facts.notes ?? [],
  });
}

/** The commit of the checkout that contains this file, marked if files differ from it; "unknown" without a checkout. */
async function commit(): Promise<string> {
  const top = await git("rev-parse", "--show-toplevel");
  if (top === undefined || `${top}/` !== ROOT.replaceAll("\\", "/")) return "unknown";
  const changed = await git("status", "--porcelain", "--", "bench", "csrc", "engine", "ffi");
  return `${await git("rev-parse", "--short", "HEAD")}${changed ? "+changes" : ""}`;
}

async function git(...args: string[]): Promise<string | undefined> {
  try {
    const command = new Deno.Command("git", { args, cwd: ROOT, stdin: "null", stdout: "piped", stderr: "null" });
    const { success, stdout } = await command.output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch {
    return undefined;
  }
}

function cpuName(): string {
  return /^model name\s*:\s*(.+)$/m.exec(readOrEmpty("/proc/cpuinfo"))?.[1]?.trim() ?? `${Deno.build.arch} CPU`;
}

function driverVersion(): string | undefined {
  return /Kernel Module\s+(?:for \S+\s+)?([\d.]+)/.exec(readOrEmpty("/proc/driver/nvidia/version"))?.[1];
}

function readOrEmpty(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
