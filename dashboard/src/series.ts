// Rows of an answer as series: the largest by name, and the others as one, so that nothing is left out.

import type { Bucket, Rows } from "./api";
import { type Gap, type Quantities, sum } from "./unpriced";

export interface Series {
  names: (string | null)[];
  /** How many groups are in it: more than one for what is left over. */
  groups: number;
  isRest: boolean;
  values: bigint[];
  total: bigint;
  /** In which buckets there is a value at all. */
  priced: boolean[];
  isPriced: boolean;
  /** What has no price, by bucket and in all. */
  gaps: (Quantities | undefined)[];
  lacking: Quantities;
}

export interface Tally {
  buckets: Bucket[];
  series: Series[];
  /** All series together, as one. */
  whole: Series;
}

/** What is in the making. */
interface Draft extends Pick<Series, "names" | "groups" | "values" | "priced"> {
  found: Gap[];
}

/**
 * Adds rows up.
 *
 * @param levelAt of a level the total is not the sum, but the mean over what had elapsed at this instant
 * @param found usage without a price, which is in no row
 */
export function tally({ buckets, rows }: Rows, top: number, levelAt?: number, found: readonly Gap[] = []): Tally {
  const places = new Map(buckets.map(({ start }, place) => [start, place]));
  const empty = (names: (string | null)[]): Draft => ({
    names,
    groups: 1,
    values: buckets.map(() => 0n),
    priced: buckets.map(() => false),
    found: [],
  });
  const drafts = new Map<string, Draft>();
  const draft = (names: (string | null)[]) => {
    const key = JSON.stringify(names);
    const known = drafts.get(key) ?? empty(names);
    drafts.set(key, known);
    return known;
  };
  for (const { bucket, names, value } of rows) {
    const { values, priced } = draft(names);
    values[bucket] = (values[bucket] ?? 0n) + value;
    priced[bucket] = true;
  }
  for (const gap of found) draft(gap.names).found.push(gap);

  const finished = ({ found, ...draft }: Draft, isRest = false): Series => {
    const gaps = found.length ? buckets.map((): Gap[] => []) : [];
    for (const gap of found) gaps[places.get(gap.start) ?? 0]?.push(gap);
    const total =
      levelAt === undefined ? draft.values.reduce((so, one) => so + one, 0n) : mean(draft.values, buckets, levelAt);
    return {
      ...draft,
      isRest,
      total,
      isPriced: draft.priced.includes(true),
      gaps: gaps.map((here) => (here.length ? sum(here) : undefined)),
      lacking: sum(found),
    };
  };
  const together = (parts: Draft[], isRest: boolean): Series => {
    const whole = { ...empty([]), groups: parts.length };
    for (const { values, priced, found } of parts) {
      values.forEach((value, at) => {
        whole.values[at] = (whole.values[at] ?? 0n) + value;
        whole.priced[at] ||= priced[at] ?? false;
      });
      whole.found.push(...found);
    }
    return finished(whole, isRest);
  };

  const all = [...drafts.values()];
  const series = new Map(all.map((one) => [one, finished(one)]));
  const rank = (one: Draft) => series.get(one) as Series;
  all.sort((a, b) => order(rank(a), rank(b)));
  const rest = all.length > top + 1 ? all.slice(top) : []; // one that is left over has a name
  const named = all.slice(0, all.length - rest.length).map(rank);
  return {
    buckets,
    series: rest.length ? [...named, together(rest, true)] : named,
    whole: together(all, false),
  };
}

/** The largest first; of those without an amount, the most used. */
function order(a: Series, b: Series): number {
  const by = (one: bigint, other: bigint) => (one < other ? 1 : one > other ? -1 : 0);
  const used = ({ lacking }: Series) => [...lacking.values()].reduce((so, one) => so + one, 0n);
  return (
    Number(b.isPriced) - Number(a.isPriced) ||
    by(a.total, b.total) ||
    by(used(a), used(b)) ||
    label(a).localeCompare(label(b))
  );
}

function mean(values: bigint[], buckets: Bucket[], at: number): bigint {
  const spans = buckets.map(({ start, end }) => BigInt(Math.max(0, Math.min(end, at) - start)));
  const whole = spans.reduce((sum, span) => sum + span, 0n);
  return whole && values.reduce((sum, value, place) => sum + value * (spans[place] ?? 0n), 0n) / whole;
}

/** What a series is called. */
export function label({ names, groups, isRest }: Pick<Series, "names" | "groups" | "isRest">): string {
  if (isRest) return `${groups} others`;
  return names.length ? names.map((name) => name ?? "(none)").join(" · ") : "All";
}
