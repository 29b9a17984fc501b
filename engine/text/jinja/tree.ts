/** The tree of a parsed template. */

export interface Call {
  args: Expression[];
  kwargs: [name: string, value: Expression][];
  /** `*args` and `**kwargs`. */
  spread?: Expression;
  kwspread?: Expression;
}

export type Expression =
  | { type: "constant"; value: string | bigint | number | boolean | null }
  | { type: "name"; name: string }
  | { type: "list" | "tuple"; items: Expression[] }
  | { type: "dict"; entries: [Expression, Expression][] }
  | { type: "attribute"; of: Expression; name: string }
  | { type: "item"; of: Expression; index: Expression }
  | { type: "slice"; parts: (Expression | undefined)[] }
  | { type: "call"; of: Expression; call: Call }
  /** `of` is undefined in a filter block, whose text it filters. */
  | { type: "filter"; of: Expression | undefined; name: string; call: Call }
  | { type: "test"; of: Expression; name: string; call: Call; negated: boolean }
  | { type: "not" | "negative" | "positive"; of: Expression }
  | { type: "and" | "or"; left: Expression; right: Expression }
  | { type: "binary"; operator: string; left: Expression; right: Expression }
  | { type: "concat"; items: Expression[] }
  | { type: "compare"; first: Expression; rest: [operator: string, right: Expression][] }
  | { type: "condition"; test: Expression; then: Expression; otherwise: Expression | undefined };

/** What a value is assigned to. */
export type Target =
  | { type: "name"; name: string }
  | { type: "tuple"; items: Target[] }
  | { type: "member"; namespace: string; name: string };

export interface Parameter {
  name: string;
  fallback: Expression | undefined;
}

export interface Macro {
  name: string;
  parameters: Parameter[];
  body: Statement[];
  /** Special names that the body mentions: caller, varargs, kwargs. */
  uses: ReadonlySet<string>;
}

export type Statement =
  | { type: "text"; text: string }
  | { type: "output"; value: Expression }
  | {
    type: "for";
    target: Target;
    of: Expression;
    test: Expression | undefined;
    body: Statement[];
    otherwise: Statement[];
    recursive: boolean;
  }
  | { type: "if"; branches: [test: Expression, body: Statement[]][]; otherwise: Statement[] }
  | { type: "set"; target: Target; value: Expression }
  | { type: "capture"; target: Target; filter: Expression | undefined; body: Statement[] }
  | { type: "with"; values: [Target, Expression][]; body: Statement[] }
  | { type: "macro"; macro: Macro }
  | { type: "callblock"; of: Expression & { type: "call" }; caller: Macro }
  | { type: "filterblock"; filter: Expression; body: Statement[] }
  | { type: "generation"; body: Statement[] }
  | { type: "break" | "continue" };
