/** Jinja's grammar: tokens to a tree. */
import { TemplateError, unsupported } from "./errors.ts";
import { type Token, tokenize } from "./lexer.ts";
import type { Call, Expression, Macro, Parameter, Statement, Target } from "./tree.ts";

/** Statements of Jinja that no chat template needs. */
const UNSUPPORTED = new Set(["block", "extends", "include", "import", "from", "autoescape", "print"]);
const COMPARISONS = new Set(["==", "!=", "<", "<=", ">", ">="]);
/** Nesting of expressions and statements, far beyond that of real templates. */
const MAX_DEPTH = 200;

/** @throws {TemplateError} */
export function parseTemplate(source: string): Statement[] {
  return new Parser(tokenize(source)).body([]);
}

type TupleOptions = { condition?: boolean; ends?: readonly string[]; parentheses?: boolean };

class Parser {
  #at = 0;
  #depth = 0;
  /** Loops around the present statement, not counting those outside a macro. */
  #loops = 0;

  constructor(readonly tokens: readonly Token[]) {}

  get #token(): Token {
    return this.tokens[this.#at] ?? { kind: "end", value: "" };
  }

  #is(kind: Token["kind"], value?: string): boolean {
    return this.#token.kind === kind && (value === undefined || this.#token.value === value);
  }

  #skip(kind: Token["kind"], value?: string): boolean {
    if (!this.#is(kind, value)) return false;
    this.#at++;
    return true;
  }

  #expect(kind: Token["kind"], value?: string): Token {
    const token = this.#token;
    if (!this.#skip(kind, value)) throw this.#unexpected(value ?? kind);
    return token;
  }

  #unexpected(wanted: string): TemplateError {
    const { kind, value } = this.#token;
    return new TemplateError(
      `found ${kind === "end" ? "its end" : `"${value === "" ? kind : value}"`}, expected ${wanted}`,
    );
  }

  #nested<T>(work: () => T): T {
    if (++this.#depth > MAX_DEPTH) throw new TemplateError("it is nested too deeply");
    const result = work();
    this.#depth--;
    return result;
  }

  /** Statements up to one of the end tags, whose name is left to be read. */
  body(ends: readonly string[]): Statement[] {
    return this.#nested(() => {
      const statements: Statement[] = [];
      while (true) {
        const token = this.#token;
        if (token.kind === "end") {
          if (ends.length > 0) throw this.#unexpected(ends.join(" or "));
          return statements;
        }
        this.#at++;
        if (token.kind === "data") statements.push({ type: "text", text: token.value });
        else if (token.kind === "variable_begin") {
          statements.push({ type: "output", value: this.#tuple() });
          this.#expect("variable_end");
        } else {
          if (this.#is("name") && ends.includes(String(this.#token.value))) return statements;
          statements.push(this.#statement());
          this.#expect("block_end");
        }
      }
    });
  }

  /** A body behind a tag that is open still, and the name of what ended it. */
  #block(...ends: string[]): { body: Statement[]; end: string } {
    this.#skip("operator", ":");
    this.#expect("block_end");
    const body = this.body(ends);
    return { body, end: String(this.#expect("name").value) };
  }

  #statement(): Statement {
    const name = String(this.#expect("name").value);
    switch (name) {
      case "for":
        return this.#for();
      case "if":
        return this.#if();
      case "set":
        return this.#set();
      case "with":
        return this.#with();
      case "macro": {
        const macro = this.#macro(this.#name(), this.#signature(), "endmacro");
        return { type: "macro", macro };
      }
      case "call":
        return this.#callBlock();
      case "filter": {
        const filter = this.#filter(undefined, true);
        return { type: "filterblock", filter: filter!, body: this.#block("endfilter").body };
      }
      case "generation":
        return { type: "generation", body: this.#outsideLoops(() => this.#block("endgeneration").body) };
      case "break":
      case "continue":
        if (this.#loops === 0) throw new TemplateError(`"${name}" stands outside a loop`);
        return { type: name };
    }
    if (UNSUPPORTED.has(name)) throw unsupported(`the statement "${name}"`);
    throw new TemplateError(`the statement "${name}" is unknown`);
  }

  #outsideLoops<T>(work: () => T): T {
    const loops = this.#loops;
    this.#loops = 0;
    const result = work();
    this.#loops = loops;
    return result;
  }

  #for(): Statement {
    const target = this.#target(["in"]);
    this.#expect("name", "in");
    const of = this.#tuple({ condition: false, ends: ["recursive"] });
    const test = this.#skip("name", "if") ? this.#expression() : undefined;
    const recursive = this.#skip("name", "recursive");
    this.#loops++;
    const { body, end } = this.#block("endfor", "else");
    this.#loops--;
    const otherwise = end === "else" ? this.#block("endfor").body : [];
    return { type: "for", target, of, test, body, otherwise, recursive };
  }

  #if(): Statement {
    const branches: [Expression, Statement[]][] = [];
    let otherwise: Statement[] = [];
    for (let end = "elif"; end === "elif";) {
      const test = this.#tuple({ condition: false });
      const block = this.#block("elif", "else", "endif");
      branches.push([test, block.body]);
      end = block.end;
      if (end === "else") otherwise = this.#block("endif").body;
    }
    return { type: "if", branches, otherwise };
  }

  #set(): Statement {
    const target = this.#target([], true);
    if (this.#skip("operator", "=")) return { type: "set", target, value: this.#tuple() };
    const filter = this.#filter(undefined);
    return { type: "capture", target, filter, body: this.#block("endset").body };
  }

  #with(): Statement {
    const values: [Target, Expression][] = [];
    while (!this.#is("block_end")) {
      if (values.length > 0) this.#expect("operator", ",");
      const target: Target = { type: "name", name: this.#name() };
      this.#expect("operator", "=");
      values.push([target, this.#expression()]);
    }
    return { type: "with", values, body: this.#block("endwith").body };
  }

  #macro(name: string, parameters: Parameter[], end: string): Macro {
    const start = this.#at;
    const { body } = this.#outsideLoops(() => this.#block(end));
    const names = this.tokens.slice(start, this.#at).filter(({ kind }) => kind === "name").map(({ value }) =>
      String(value)
    );
    return {
      name,
      parameters,
      body,
      uses: new Set(names.filter((one) => ["caller", "varargs", "kwargs"].includes(one))),
    };
  }

  #callBlock(): Statement {
    // The signature of the caller comes first, its body last.
    const parameters = this.#is("operator", "(") ? this.#signature() : [];
    const of = this.#expression();
    if (of.type !== "call") throw new TemplateError("a call block calls nothing");
    return { type: "callblock", of, caller: this.#macro("caller", parameters, "endcall") };
  }

  #signature(): Parameter[] {
    this.#expect("operator", "(");
    const parameters: Parameter[] = [];
    while (!this.#is("operator", ")")) {
      if (parameters.length > 0) this.#expect("operator", ",");
      const name = this.#name();
      const fallback = this.#skip("operator", "=") ? this.#expression() : undefined;
      if (!fallback && parameters.at(-1)?.fallback) {
        throw new TemplateError("a parameter without a default follows one with a default");
      }
      parameters.push({ name, fallback });
    }
    this.#expect("operator", ")");
    return parameters;
  }

  /** A name that can be assigned to. */
  #name(): string {
    const name = String(this.#expect("name").value);
    if (/^(true|false|none|True|False|None)$/.test(name)) throw new TemplateError(`"${name}" cannot be assigned to`);
    return name;
  }

  #target(ends: readonly string[], members = false): Target {
    const items: Target[] = [];
    let isTuple = false;
    while (true) {
      if (items.length > 0) {
        if (!this.#skip("operator", ",")) break;
        isTuple = true;
        if (this.#is("name") ? ends.includes(String(this.#token.value)) : !this.#is("operator", "(")) break;
      }
      if (this.#skip("operator", "(")) {
        const inner = this.#target([]);
        this.#expect("operator", ")");
        items.push(inner);
        continue;
      }
      const name = this.#name();
      if (members && items.length === 0 && this.#skip("operator", ".")) {
        return { type: "member", namespace: name, name: String(this.#expect("name").value) };
      }
      items.push({ type: "name", name });
    }
    return isTuple ? { type: "tuple", items } : items[0]!;
  }

  /** One expression, or several with commas between, which are a tuple. */
  #tuple({ condition = true, ends = [], parentheses = false }: TupleOptions = {}): Expression {
    const items: Expression[] = [];
    let isTuple = false;
    const atEnd = (): boolean => {
      const { kind, value } = this.#token;
      return kind === "variable_end" || kind === "block_end" || (kind === "operator" && value === ")") ||
        (kind === "name" && ends.includes(String(value)));
    };
    while (true) {
      if (items.length > 0) {
        if (!this.#skip("operator", ",")) break;
        isTuple = true;
      }
      if (atEnd()) break;
      items.push(condition ? this.#expression() : this.#or());
      if (!this.#is("operator", ",")) break;
    }
    if (!isTuple && items.length === 1) return items[0]!;
    if (items.length === 0 && !parentheses) throw this.#unexpected("an expression");
    return { type: "tuple", items };
  }

  #expression(): Expression {
    return this.#nested(() => {
      let value = this.#or();
      while (this.#skip("name", "if")) {
        const test = this.#or();
        const otherwise = this.#skip("name", "else") ? this.#expression() : undefined;
        value = { type: "condition", test, then: value, otherwise };
      }
      return value;
    });
  }

  #or(): Expression {
    let left = this.#and();
    while (this.#skip("name", "or")) left = { type: "or", left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.#skip("name", "and")) left = { type: "and", left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    if (!this.#skip("name", "not")) return this.#compare();
    return this.#nested(() => ({ type: "not", of: this.#not() }));
  }

  #compare(): Expression {
    const first = this.#sum();
    const rest: [string, Expression][] = [];
    while (true) {
      const { kind, value } = this.#token;
      if (kind === "operator" && COMPARISONS.has(value)) {
        this.#at++;
        rest.push([value, this.#sum()]);
      } else if (this.#skip("name", "in")) rest.push(["in", this.#sum()]);
      else if (this.#is("name", "not") && this.tokens[this.#at + 1]?.value === "in") {
        this.#at += 2;
        rest.push(["not in", this.#sum()]);
      } else return rest.length === 0 ? first : { type: "compare", first, rest };
    }
  }

  #binary(operators: readonly string[], operand: () => Expression): Expression {
    let left = operand();
    while (this.#is("operator") && operators.includes(String(this.#token.value))) {
      const operator = String(this.#expect("operator").value);
      left = { type: "binary", operator, left, right: operand() };
    }
    return left;
  }

  #sum(): Expression {
    return this.#binary(["+", "-"], () => this.#concat());
  }

  #concat(): Expression {
    const items = [this.#product()];
    while (this.#skip("operator", "~")) items.push(this.#product());
    return items.length === 1 ? items[0]! : { type: "concat", items };
  }

  #product(): Expression {
    return this.#binary(["*", "/", "//", "%"], () => this.#binary(["**"], () => this.#unary(true)));
  }

  #unary(filters: boolean): Expression {
    return this.#nested(() => {
      const sign = this.#skip("operator", "-") ? "negative" : this.#skip("operator", "+") ? "positive" : undefined;
      const value = this.#postfix(sign ? { type: sign, of: this.#unary(false) } : this.#primary());
      return filters ? this.#filtersAndTests(value) : value;
    });
  }

  #primary(): Expression {
    const token = this.#token;
    this.#at++;
    switch (token.kind) {
      case "name":
        if (/^[tT]rue$/.test(token.value)) return { type: "constant", value: true };
        if (/^[fF]alse$/.test(token.value)) return { type: "constant", value: false };
        if (/^[nN]one$/.test(token.value)) return { type: "constant", value: null };
        return { type: "name", name: token.value };
      case "string": {
        let value = token.value;
        while (this.#is("string")) value += String(this.#expect("string").value);
        return { type: "constant", value };
      }
      case "integer":
      case "float":
        return { type: "constant", value: token.value };
      case "operator":
        if (token.value === "(") {
          const value = this.#tuple({ parentheses: true });
          this.#expect("operator", ")");
          return value;
        }
        if (token.value === "[") return { type: "list", items: this.#list("]", () => this.#expression()) };
        if (token.value === "{") {
          const entry = (): [Expression, Expression] => {
            const key = this.#expression();
            this.#expect("operator", ":");
            return [key, this.#expression()];
          };
          return { type: "dict", entries: this.#list("}", entry) };
        }
    }
    this.#at--;
    throw this.#unexpected("an expression");
  }

  /** Items with commas between, up to and with the closing bracket. */
  #list<T>(close: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.#is("operator", close)) {
      if (items.length > 0) this.#expect("operator", ",");
      if (this.#is("operator", close)) break;
      items.push(item());
    }
    this.#expect("operator", close);
    return items;
  }

  #postfix(value: Expression): Expression {
    while (true) {
      if (this.#skip("operator", ".")) {
        const token = this.#token;
        this.#at++;
        if (token.kind === "name") value = { type: "attribute", of: value, name: token.value };
        else if (token.kind === "integer") {
          value = { type: "item", of: value, index: { type: "constant", value: token.value } };
        } else throw new TemplateError("a name is missing behind a dot");
      } else if (this.#skip("operator", "[")) {
        const items = this.#list("]", () => this.#subscript());
        if (items.length === 0) throw new TemplateError("an index is empty");
        const index: Expression = items.length === 1 ? items[0]! : { type: "tuple", items };
        value = { type: "item", of: value, index };
      } else if (this.#is("operator", "(")) value = { type: "call", of: value, call: this.#call() };
      else return value;
    }
  }

  #subscript(): Expression {
    const parts: (Expression | undefined)[] = [undefined];
    while (!this.#is("operator", "]") && !this.#is("operator", ",")) {
      if (this.#skip("operator", ":")) {
        parts.push(undefined);
        if (parts.length > 3) throw this.#unexpected('"]"');
      } else if (parts.at(-1) !== undefined) throw this.#unexpected('"]"');
      else parts[parts.length - 1] = this.#expression();
    }
    if (parts.length > 1) return { type: "slice", parts };
    if (!parts[0]) throw this.#unexpected("an expression");
    return parts[0];
  }

  #call(): Call {
    this.#expect("operator", "(");
    const call: Call = { args: [], kwargs: [] };
    let first = true;
    while (!this.#is("operator", ")")) {
      if (!first) this.#expect("operator", ",");
      first = false;
      if (this.#is("operator", ")")) break;
      if (this.#skip("operator", "*")) {
        if (call.spread || call.kwspread) throw new TemplateError("a call has more than one *argument");
        call.spread = this.#expression();
      } else if (this.#skip("operator", "**")) {
        if (call.kwspread) throw new TemplateError("a call has more than one **argument");
        call.kwspread = this.#expression();
      } else if (
        this.#is("name") && this.tokens[this.#at + 1]?.kind === "operator" && this.tokens[this.#at + 1]?.value === "="
      ) {
        const name = String(this.#expect("name").value);
        this.#at++;
        if (call.kwspread) throw new TemplateError("a named argument follows **arguments");
        call.kwargs.push([name, this.#expression()]);
      } else {
        if (call.spread || call.kwspread || call.kwargs.length > 0) {
          throw new TemplateError("a positional argument follows a named one");
        }
        call.args.push(this.#expression());
      }
    }
    this.#expect("operator", ")");
    return call;
  }

  #dottedName(): string {
    let name = String(this.#expect("name").value);
    while (this.#skip("operator", ".")) name += `.${this.#expect("name").value}`;
    return name;
  }

  /** Filters behind a value; `inline`: the first has no bar, as in a filter block. */
  #filter(value: Expression | undefined, inline = false): Expression | undefined {
    while (inline || this.#skip("operator", "|")) {
      const name = this.#dottedName();
      const call = this.#is("operator", "(") ? this.#call() : { args: [], kwargs: [] };
      value = { type: "filter", of: value, name, call };
      inline = false;
    }
    return value;
  }

  #filtersAndTests(value: Expression): Expression {
    while (true) {
      if (this.#is("operator", "|")) value = this.#filter(value)!;
      else if (this.#skip("name", "is")) value = this.#test(value);
      else if (this.#is("operator", "(")) value = { type: "call", of: value, call: this.#call() };
      else return value;
    }
  }

  #test(of: Expression): Expression {
    const negated = this.#skip("name", "not");
    const name = this.#dottedName();
    const { kind, value } = this.#token;
    let call: Call = { args: [], kwargs: [] };
    if (this.#is("operator", "(")) call = this.#call();
    else if (
      (kind === "name" && !["else", "or", "and"].includes(value)) || kind === "string" || kind === "integer" ||
      kind === "float" || (kind === "operator" && (value === "[" || value === "{"))
    ) {
      if (this.#is("name", "is")) throw new TemplateError("tests cannot be chained");
      call = { args: [this.#postfix(this.#primary())], kwargs: [] };
    }
    return { type: "test", of, name, call, negated };
  }
}
