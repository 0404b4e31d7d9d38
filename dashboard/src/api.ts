// Requests to the public API, made with the session's cookie instead of a key.

import { isMoney, read } from "./amount";
import type { Subject } from "./kinds";
import { learn, SECONDS, type Width, type Window } from "./time";

/** An answer that is none: what went wrong, as a sentence for whoever reads the page. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
  }
}

export interface SignedIn {
  id: string;
  name: string;
  organization_id: string;
  scopes: string[];
  expires_at: number;
}

export interface Session {
  key: SignedIn | null;
  ended: boolean;
}

export interface List<Item> {
  data: Item[];
  has_more: boolean;
  last_id?: string | null;
}

export type Parameters = readonly (readonly [string, string])[];
type Reviver = (key: string, value: unknown) => unknown;
/** What is newer than the types of the language: a value as it stands in the text, and JSON as text. */
type SourceReviver = (key: string, value: unknown, context?: { source?: string }) => unknown;
const { rawJSON } = JSON as { rawJSON?: (text: string) => unknown };

/** Told whenever the server says that nobody is signed in any more. */
export const signedOut = new EventTarget();

/** Longer than the server itself waits for its store. */
const PATIENCE_MS = 60_000;

/** Sends a request and reads the answer. */
async function send(path: string, options: RequestInit = {}): Promise<string> {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const signal = options.signal ? AbortSignal.any([options.signal, patience]) : patience;
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options, signal });
    text = await response.text();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refusal("The server does not answer. Check that it runs, then try again.", 0, "");
  }
  learn(response.headers.get("date"));
  if (response.ok) return text;
  if (response.status === 401 && path !== "/session") signedOut.dispatchEvent(new Event("ended"));
  throw refusal(response.status, text);
}

function refusal(status: number, text: string): Refusal {
  try {
    const { message, code } = JSON.parse(text).error;
    return new Refusal(message, status, code);
  } catch {
    const remedy = "Try again in a moment; if that does not help, look at the server's log, or the proxy's before it.";
    return new Refusal(`The server answered ${status} without a reason. ${remedy}`, status, "");
  }
}

export async function get<Answer>(path: string, parameters: Parameters = [], signal?: AbortSignal): Promise<Answer> {
  return JSON.parse(await getText(path, parameters, signal));
}

/** The answer as it came. */
export function getText(path: string, parameters: Parameters, signal?: AbortSignal): Promise<string> {
  return send(address(path, parameters), signal ? { signal } : {});
}

export async function change<Answer>(method: "POST" | "DELETE", path: string, body?: string): Promise<Answer> {
  return JSON.parse(await send(path, { method, ...(body === undefined ? {} : { body }) }));
}

export function address(path: string, parameters: Parameters): string {
  const query = new URLSearchParams(parameters.map(([name, value]) => [name, value]));
  return parameters.length ? `${path}?${query}` : path;
}

/** A result of a bucket: its dimensions, and the one measure that was asked for. */
export interface Row {
  bucket: number;
  names: (string | null)[];
  value: bigint;
}

export interface Bucket extends Window {}

export interface Rows {
  buckets: Bucket[];
  rows: Row[];
}

/** A result as it comes; of amounts, `value` has all digits. */
export type Result = Readonly<Record<string, unknown>>;

interface Page {
  data: { start_time: number; end_time: number; results: Result[] }[];
  next_page: string | null;
}

const LIMITS: Readonly<Record<Width, number>> = { "1m": 1440, "1h": 168, "1d": 31 };
const COSTS_BY_DAY = 180;

/** Parameters of the first page of a question. */
export function parameters(
  subject: Subject,
  window: Window,
  width: Width | "all",
  groupBy: readonly string[],
  filters: Readonly<Record<string, readonly string[]>>,
): [string, string][] {
  const most = () => {
    if (width === "all") return 1;
    const allowed = width === "1d" && subject.measures[0] === "amount" ? COSTS_BY_DAY : LIMITS[width];
    return Math.min(allowed, Math.ceil((window.end - window.start) / SECONDS[width]) + 1);
  };
  return [
    ["start_time", String(window.start)],
    ["end_time", String(window.end)],
    ["bucket_width", width],
    ["limit", String(most())],
    ...groupBy.map((name): [string, string] => ["group_by", name]),
    ...Object.entries(filters).flatMap(([dimension, values]) =>
      values.map((value): [string, string] => [subject.filters[dimension] ?? dimension, value]),
    ),
  ];
}

/** Asks page by page, and returns all buckets. Where a page would have too many results it asks for fewer buckets. */
export async function buckets(subject: Subject, asked: Parameters, signal?: AbortSignal): Promise<Page["data"]> {
  const found: Page["data"] = [];
  let query = asked;
  let next: string | null = null;
  do {
    try {
      const text = await getText(subject.path, next ? [...query, ["page", next]] : query, signal);
      const page: Page = JSON.parse(text, subject.measures.some(isMoney) ? decimals : whole);
      found.push(...page.data);
      next = page.next_page;
    } catch (error) {
      const fewer = Math.floor(limit(query) / 2);
      if (!(error instanceof Refusal) || error.code !== "too_many_results" || !fewer) throw error;
      query = query.map(([name, value]) => [name, name === "limit" ? String(fewer) : value]);
      next ??= ""; // the first page once more
    }
  } while (next !== null);
  return found;
}

export function limit(asked: Parameters): number {
  return Number(asked.find(([name]) => name === "limit")?.[1]);
}

/** Asks for one measure. */
export async function rows(subject: Subject, measure: string, asked: Parameters, signal?: AbortSignal): Promise<Rows> {
  const groupBy = asked.filter(([name]) => name === "group_by").map(([, value]) => value);
  const found = await buckets(subject, asked, signal);
  return {
    buckets: found.map(({ start_time, end_time }) => ({ start: start_time, end: end_time })),
    rows: found.flatMap(({ results }, bucket) =>
      results.map((result) => ({
        bucket,
        names: groupBy.map((name) => (result[name] == null ? null : String(result[name]))),
        value: number(result, measure),
      })),
    ),
  };
}

export function number(result: Result, measure: string): bigint {
  return isMoney(measure) ? (result.amount as { value: bigint }).value : BigInt(result[measure] as number | bigint);
}

/** Amounts with every digit they were written with; browsers that cannot tell these give those of a float. */
const decimals = ((key, value, context) =>
  key === "value" ? read(context?.source ?? String(value)) : value) satisfies SourceReviver as Reviver;

/** Whole numbers too large for a float, with all their digits. */
const whole = ((_, value, context) =>
  typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")
    ? BigInt(context?.source ?? "")
    : value) satisfies SourceReviver as Reviver;

/** Numbers that are written again exactly as they came; browsers that cannot do so write floats. */
export const verbatim = ((_, value, context) =>
  typeof value === "number" && context?.source && rawJSON
    ? rawJSON(context.source)
    : value) satisfies SourceReviver as Reviver;
