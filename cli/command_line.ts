/** The command line as provenance tells it. */
export function commandLine(): string {
  const quoted = Deno.args.map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
  return ["pagesift", ...quoted].join(" ");
}
