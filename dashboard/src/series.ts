// Rows of an answer as series: the largest by name, and the others as one, so that nothing is left out.

import type { Bucket, Rows } from "./api";

export interface Series {
  names: (string | null)[];
  /** How many groups are in it: more than one for what is left over. */
  groups: number;
  isRest: boolean;
  values: bigint[];
  total: bigint;
}

export interface Tally {
  buckets: Bucket[];
  series: Series[];
  /** All series together, by bucket. */
  sums: bigint[];
  total: bigint;
}

/**
 * Adds rows up.
 *
 * @param levelAt of a level the total is not the sum, but the mean over what had elapsed at this instant
 */
export function tally({ buckets, rows }: Rows, top: number, levelAt?: number): Tally {
  const found = new Map<string, Series>();
  const sums = buckets.map(() => 0n);
  for (const { bucket, names, value } of rows) {
    const key = JSON.stringify(names);
    let series = found.get(key);
    if (!series) {
      series = { names, groups: 1, isRest: false, values: buckets.map(() => 0n), total: 0n };
      found.set(key, series);
    }
    series.values[bucket] = (series.values[bucket] ?? 0n) + value;
    sums[bucket] = (sums[bucket] ?? 0n) + value;
  }
  const total = (values: bigint[]) =>
    levelAt === undefined ? values.reduce((sum, one) => sum + one, 0n) : mean(values, buckets, levelAt);
  const all = [...found.values()];
  for (const series of all) series.total = total(series.values);
  all.sort((a, b) => (a.total < b.total ? 1 : a.total > b.total ? -1 : label(a).localeCompare(label(b))));
  const rest = all.length > top + 1 ? all.splice(top) : []; // one that is left over has a name
  if (rest.length) {
    const values = buckets.map((_, at) => rest.reduce((sum, one) => sum + (one.values[at] ?? 0n), 0n));
    all.push({ names: [], groups: rest.length, isRest: true, values, total: total(values) });
  }
  return { buckets, series: all, sums, total: total(sums) };
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
