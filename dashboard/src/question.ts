// The question on screen: the address holds all of it, and the API is asked by it.

import { isMoney } from "./amount";
import { address, limit, parameters } from "./api";
import { SUBJECTS, type Subject, subject } from "./kinds";
import { chosenWidth, LAST, now, RANGES, SECONDS, type Width, type Window, widths } from "./time";
import { UNPRICED, withoutPrice } from "./unpriced";

export const CHARTS = { bars: "Bars", lines: "Lines", share: "Share" } as const;
export type ChartKind = keyof typeof CHARTS;
export const TOPS = [5, 8, 20, 50] as const;

export interface Question {
  of: string;
  measure: string;
  /** Name of a range, or a window of its own. */
  range: string | Window;
  /** Null: as fits the range. */
  width: Width | null;
  groupBy: string[];
  filters: Record<string, string[]>;
  top: number;
  chart: ChartKind;
  table: "totals" | "times";
}

export const FIRST: Question = {
  of: "costs",
  measure: "amount",
  range: "30d",
  width: null,
  groupBy: ["model"],
  filters: {},
  top: 8,
  chart: "bars",
  table: "totals",
};

/** Reads a question from an address; what it does not understand is as in the first question. */
export function fromAddress(query: URLSearchParams): Question {
  const asked = query.get("of") ?? "";
  const of = Object.hasOwn(SUBJECTS, asked) ? asked : FIRST.of;
  const about = subject(of);
  const measure = query.get("measure") ?? "";
  const [start, end] = [instant(query.get("start")), instant(query.get("end"))];
  const range = query.get("range") ?? "";
  const width = query.get("width") ?? "";
  const chart = query.get("chart") ?? "";
  const top = Number(query.get("top"));
  const groupBy = query.has("of") ? query.getAll("group_by") : FIRST.groupBy;
  return {
    of,
    measure: about.measures.includes(measure) ? measure : (about.measures[0] ?? ""),
    range: start && end > start ? { start, end } : Object.hasOwn(RANGES, range) ? range : FIRST.range,
    width: Object.hasOwn(SECONDS, width) ? (width as Width) : null,
    groupBy: [...new Set(groupBy)].filter((name) => about.groupBy.includes(name)).slice(0, 2),
    filters: Object.fromEntries(
      Object.keys(about.filters)
        .map((dimension) => [dimension, query.getAll(dimension)] as const)
        .filter(([, values]) => values.length),
    ),
    top: (TOPS as readonly number[]).includes(top) ? top : FIRST.top,
    chart: Object.hasOwn(CHARTS, chart) ? (chart as ChartKind) : FIRST.chart,
    table: query.get("table") === "times" ? "times" : "totals",
  };
}

function instant(text: string | null): number {
  const found = Number(text);
  return Number.isInteger(found) && found > 0 && found <= LAST ? found : 0;
}

/** Writes a question as an address of this page. */
export function toAddress(question: Question): string {
  const { of, measure, range, width, groupBy, filters, top, chart, table } = question;
  const query: [string, string][] = [
    ["of", of],
    ["measure", measure],
    ...(typeof range === "string"
      ? [["range", range] as [string, string]]
      : ([
          ["start", String(range.start)],
          ["end", String(range.end)],
        ] as [string, string][])),
    ...(width ? [["width", width] as [string, string]] : []),
    ...groupBy.map((name): [string, string] => ["group_by", name]),
    ...Object.entries(filters).flatMap(([name, values]) => values.map((value): [string, string] => [name, value])),
    ["top", String(top)],
    ["chart", chart],
    ...(table === "times" ? [["table", table] as [string, string]] : []),
  ];
  return address("/explore", query);
}

export function window({ range }: Question, at = now()): Window {
  if (typeof range !== "string") return range;
  return { start: (RANGES[range] ?? RANGES["30d"])?.start(at) ?? 0, end: at + 1 };
}

export function width(question: Question): Width {
  const within = window(question);
  const allowed = widths(within);
  if (question.width && allowed.includes(question.width)) return question.width;
  const fitting = chosenWidth(within);
  return allowed.includes(fitting) ? fitting : "1d";
}

export function about(question: Question): Subject {
  return subject(question.of);
}

/** What the API is asked for. */
export function asked(question: Question): [string, string][] {
  return parameters(about(question), window(question), width(question), question.groupBy, question.filters);
}

/** Path and parameters that ask what the amounts of a question leave out. */
function lacking(question: Question): [string, [string, string][]] {
  return [UNPRICED, withoutPrice(window(question), width(question), question.groupBy, question.filters)];
}

function quoted([path, parameters]: [string, [string, string][]]): string {
  return `'${address(location.origin + path, parameters).replaceAll("'", "%27")}'`;
}

/** The question as a command to paste; the key is the reader's to put in. It asks for every page of the answer. */
export function asCurl(question: Question): string {
  const parameters = asked(question);
  const url = quoted([about(question).path, parameters]);
  const key = '-H "Authorization: Bearer $TALLYBOOK_ADMIN_KEY"';
  const { start, end } = window(question);
  const more = isMoney(question.measure)
    ? `# Usage without a price, which is in no amount:\ncurl -s ${quoted(lacking(question))} \\\n  ${key} >&2\n`
    : "";
  if ((end - start) / SECONDS[width(question)] < limit(parameters)) return `curl -s ${url} \\\n  ${key}\n${more}`;
  return `page=
while :; do
  answer=$(curl -s ${url}"$page" \\
    ${key})
  printf '%s\\n' "$answer"
  page=$(printf '%s' "$answer" | sed -n 's/.*"next_page":"\\([^"]*\\)".*/\\&page=\\1/p')
  [ -n "$page" ] || break
done
${more}`;
}

/** The question as a program that reads every page of the answer. */
export function asPython(question: Question): string {
  const list = (parameters: [string, string][]) =>
    parameters.map(([name, value]) => `    (${JSON.stringify(name)}, ${JSON.stringify(value)}),`).join("\n");
  const [path, unpriced] = lacking(question);
  const [more, asking] = isMoney(question.measure)
    ? [
        `unpriced = [\n${list(unpriced)}\n]\n`,
        `    # Usage without a price is in no amount.
    answer = client.get("${path}", params=unpriced)
    answer.raise_for_status()
    for entry in answer.json()["data"]:
        print("unpriced:", entry, file=sys.stderr)
`,
      ]
    : ["", ""];
  return `import os${more && "\nimport sys"}

import httpx

parameters = [
${list(asked(question))}
]
${more}headers = {"Authorization": f"Bearer {os.environ['TALLYBOOK_ADMIN_KEY']}"}
page = None
with httpx.Client(base_url="${location.origin}", headers=headers) as client:
    while True:
        answer = client.get("${about(question).path}", params=parameters + ([("page", page)] if page else []))
        answer.raise_for_status()
        for bucket in answer.json()["data"]:
            for result in bucket["results"]:
                print(bucket["start_time"], result)
        page = answer.json()["next_page"]
        if not page:
            break
${asking}`;
}
