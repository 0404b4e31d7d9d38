// Usage without a price: it is in no amount, and every amount says so.

import { approximate, brief, exact, read } from "./amount";
import { getText, type List, parameters, Refusal } from "./api";
import { subject } from "./kinds";
import { Figure } from "./parts";
import type { Series } from "./series";
import { floor, SECONDS, type Width, type Window } from "./time";

/** How much of each unit, in units of 10^-18. */
export type Quantities = ReadonlyMap<string, bigint>;

/** Usage without a price, of one line item, bucket and group. */
export interface Gap {
  /** Start of its bucket. */
  start: number;
  names: (string | null)[];
  model: string | null;
  item: string;
  unit: string;
  quantity: bigint;
}

interface Entry extends Readonly<Record<string, unknown>> {
  start_time: number;
  model: string | null;
  line_item: string;
  quantity: bigint;
  quantity_unit: string | null;
}

export const UNPRICED = "/v1/organization/costs/unpriced";
const COSTS = subject("costs");
const UNITS: Readonly<Record<string, string>> = { duration_seconds: "seconds", gibibyte_hours: "GiB-hours" };

/** The parameters that ask for what the amounts of a question leave out. */
export function withoutPrice(
  window: Window,
  width: Width | "all",
  groupBy: readonly string[],
  filters: Readonly<Record<string, readonly string[]>>,
): [string, string][] {
  const asked = parameters(COSTS, window, width, groupBy, filters).filter(([name]) => name !== "limit");
  return [...asked, ["count_events", "false"]];
}

/** Asks what amounts leave out; where an answer would be too large, for the halves of its window. */
export async function gaps(
  window: Window,
  width: Width | "all",
  groupBy: readonly string[],
  filters: Readonly<Record<string, readonly string[]>>,
  signal?: AbortSignal,
): Promise<Gap[]> {
  let text: string;
  try {
    text = await getText(UNPRICED, withoutPrice(window, width, groupBy, filters), signal);
  } catch (error) {
    const middle = width === "all" ? 0 : floor((window.start + window.end) / 2, SECONDS[width]);
    if (!(error instanceof Refusal) || error.code !== "too_many_results" || middle <= window.start) throw error;
    const halves = [
      { start: window.start, end: middle },
      { start: middle, end: window.end },
    ];
    return (await Promise.all(halves.map((half) => gaps(half, width, groupBy, filters, signal)))).flat();
  }
  const quantity = (key: string, value: unknown, context?: { source?: string }) =>
    key === "quantity" ? read(context?.source ?? String(value)) : value;
  const { data }: List<Entry> = JSON.parse(text, quantity as (key: string, value: unknown) => unknown);
  return data.map((entry) => ({
    start: entry.start_time,
    names: groupBy.map((name) => (entry[name] == null ? null : String(entry[name]))),
    model: entry.model,
    item: entry.line_item,
    unit: entry.quantity_unit ? (UNITS[entry.quantity_unit] ?? entry.quantity_unit) : entry.line_item,
    quantity: entry.quantity,
  }));
}

export function sum(found: readonly Gap[]): Quantities {
  const sums = new Map<string, bigint>();
  for (const { unit, quantity } of found) sums.set(unit, (sums.get(unit) ?? 0n) + quantity);
  return sums;
}

/** Quantities in words; `isExact` has all digits, as files want them. */
export function said(lacking: Quantities, isExact = false): string {
  return [...lacking]
    .map(([unit, value]) => `${isExact ? exact(value, "amount") : brief(approximate(value, "amount"), unit)} ${unit}`)
    .join(isExact ? "; " : ", ");
}

/** An amount, marked where there is usage that is not in it; where nothing of it has a price, that instead of 0. */
export function Amount({
  value,
  measure,
  isPriced,
  lacking,
}: {
  value: bigint;
  measure: string;
  isPriced: boolean;
  lacking: Quantities | undefined;
}) {
  if (lacking?.size && !isPriced) return <Unpriced lacking={lacking} />;
  return (
    <>
      <Figure value={value} measure={measure} />
      {lacking && lacking.size > 0 && <More lacking={lacking} />}
    </>
  );
}

/** What stands for an amount where nothing has a price. */
export function Unpriced({ lacking }: { lacking: Quantities }) {
  return (
    <span class="lacking" title={`${said(lacking)} without a price`}>
      unpriced
    </span>
  );
}

/** All of a series, or of several. */
export function Whole({ of, measure }: { of: Series; measure: string }) {
  return <Amount value={of.total} measure={measure} isPriced={of.isPriced} lacking={of.lacking} />;
}

/** The mark beside an amount that is not all. */
export function More({ lacking }: { lacking: Quantities }) {
  const title = `and ${said(lacking)} without a price`;
  return (
    <span class="lacking" title={title}>
      {" +"}
      <span class="unseen"> {title}</span>
    </span>
  );
}

const NAMED_MAX = 5;
const LIST = new Intl.ListFormat("en");

/** What an amount leaves out: the line below it. */
export function Lacking({ found }: { found: readonly Gap[] }) {
  if (!found.length) return null;
  const models = [...new Set(found.flatMap(({ model }) => model ?? []))];
  const others = models.length - NAMED_MAX;
  const named = [...models.slice(0, NAMED_MAX), ...(others > 0 ? [`${others} more`] : [])];
  const items = [...new Set(found.map(({ item }) => item))];
  return (
    <p class="lacking" title={items.join("\n")}>
      <span class="swatch hatched" aria-hidden="true" />
      Unpriced, and in no amount: {said(sum(found))}
      {named.length > 0 && (
        <>
          {" of "}
          <bdi>{LIST.format(named)}</bdi>
        </>
      )}
      {". "}
      <a href="/manage#unpriced">Give a price</a>
    </p>
  );
}
