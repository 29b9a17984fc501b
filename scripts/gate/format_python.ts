/** Checks lint and format of all Python with ruff (`ruff.toml`); `--write` applies fixes and formats. */
import { log } from "../output.ts";
import { runPythonTool } from "./python_tools.ts";

if (import.meta.main) {
  const write = Deno.args.includes("--write");
  const linted = await runPythonTool("ruff", ["check", "--quiet", ...write ? ["--fix"] : []]);
  const formatted = await runPythonTool("ruff", ["format", "--quiet", ...write ? [] : ["--diff"]]);
  if (!linted || !formatted) {
    log("format_python: the Python above breaks a rule or is not formatted; run the command again with --write");
    Deno.exit(1);
  }
}
