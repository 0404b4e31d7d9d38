// Requests to the public API, made with the session's cookie instead of a key.

import { isMoney, read } from "./amount";
import type { Subject } from "./kinds";
import { SECONDS, type Width, type Window } from "./time";

/** An answer that is none: what went wrong, as a sentence for whoever reads the page. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly status: number,
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

async function send(path: string, options: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refusal("The server does not answer. Check that it runs, then try again.", 0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const refusal = new Refusal(told?.error?.message ?? `The server answered ${response.status}.`, response.status);
  if (response.status === 401 && path !== "/session") signedOut.dispatchEvent(new Event("ended"));
  throw refusal;
}

export async function get<Answer>(path: string, parameters: Parameters = [], signal?: AbortSignal): Promise<Answer> {
  return (await send(address(path, parameters), signal ? { signal } : {})).json();
}

/** The answer as it came. */
export async function getText(path: string, parameters: Parameters, signal: AbortSignal): Promise<string> {
  return (await send(address(path, parameters), { signal })).text();
}

export async function change<Answer>(method: "POST" | "DELETE", path: string, body?: string): Promise<Answer> {
  return (await send(path, { method, ...(body === undefined ? {} : { body }) })).json();
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
  const limit = () => {
    if (width === "all") return 1;
    const most = width === "1d" && subject.measures[0] === "amount" ? COSTS_BY_DAY : LIMITS[width];
    return Math.min(most, Math.ceil((window.end - window.start) / SECONDS[width]) + 1);
  };
  return [
    ["start_time", String(window.start)],
    ["end_time", String(window.end)],
    ["bucket_width", width],
    ["limit", String(limit())],
    ...groupBy.map((name): [string, string] => ["group_by", name]),
    ...Object.entries(filters).flatMap(([dimension, values]) =>
      values.map((value): [string, string] => [subject.filters[dimension] ?? dimension, value]),
    ),
  ];
}

/** Asks page by page, and returns all buckets. */
export async function buckets(
  subject: Subject,
  asked: [string, string][],
  signal?: AbortSignal,
): Promise<Page["data"]> {
  const found: Page["data"] = [];
  let next: string | null = null;
  do {
    const query: [string, string][] = next ? [...asked, ["page", next]] : asked;
    const response = await send(address(subject.path, query), signal ? { signal } : {});
    const isCosts = subject.measures.some(isMoney);
    const page: Page = isCosts ? JSON.parse(await response.text(), decimals) : await response.json();
    found.push(...page.data);
    next = page.next_page;
  } while (next);
  return found;
}

/** Asks for one measure. */
export async function rows(
  subject: Subject,
  measure: string,
  asked: [string, string][],
  signal?: AbortSignal,
): Promise<Rows> {
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
  return isMoney(measure) ? (result.amount as { value: bigint }).value : BigInt(result[measure] as number);
}

/** Amounts with every digit they were written with; browsers that cannot tell these give those of a float. */
const decimals = ((key, value, context) =>
  key === "value" ? read(context?.source ?? String(value)) : value) satisfies SourceReviver as Reviver;

/** Numbers that are written again exactly as they came; browsers that cannot do so write floats. */
export const verbatim = ((_, value, context) =>
  typeof value === "number" && context?.source && rawJSON
    ? rawJSON(context.source)
    : value) satisfies SourceReviver as Reviver;
