// Live: today, as it comes in. Sums of the day are asked for all the time, minutes only where a sum has changed.

import { useEffect, useRef, useState } from "preact/hooks";
import { buckets, number, parameters, type Row, type Rows, rows } from "./api";
import { Chart, colour } from "./chart";
import { KINDS, type Subject, subject } from "./kinds";
import type { ViewProps } from "./main";
import { Figure, Problem, Scroll } from "./parts";
import { type Series, type Tally, tally } from "./series";
import { floor, midnight, now, SECONDS, tick } from "./time";
import { Folded } from "./times";
import { type Gap, gaps, Lacking, Whole } from "./unpriced";

const EVERY_MS = 1_000;
/** A server that takes long is asked less often: of so many parts of the time it works for this page in one. */
const PARTS = 5;
const EVERY_MS_MAX = 10_000;
const MINUTES = 60;
const CALLS = "num_requests";
const COUNTED = KINDS.flatMap(([name, kind]) => (kind.calls ? [{ name, kind, calls: kind.calls }] : []));
const COSTS = subject("costs");

interface Seen {
  day: number;
  /** What was counted today, by kind. */
  today: ReadonlyMap<string, bigint>;
  spent: Series;
  /** What of today is in no amount. */
  lacking: Gap[];
  /** Calls by minute, by kind. */
  minutes: ReadonlyMap<string, Rows>;
  minute: number;
}

async function look(before: Seen | undefined, signal: AbortSignal): Promise<Seen> {
  const at = now() + 1;
  const day = midnight(at - 1);
  const minute = floor(at - 1, 60);
  const isNew = !before || before.day !== day || before.minute !== minute;
  const today = new Map(before?.today);
  const minutes = new Map(before?.minutes);
  const changed = await Promise.all(
    COUNTED.map(async ({ name, kind, calls }) => {
      const sum = await total(kind, calls, day, at, signal);
      const isChanged = isNew || sum !== before.today.get(name);
      today.set(name, sum);
      if (isChanged) minutes.set(name, await byMinute(kind, calls, minute, signal));
      return isChanged;
    }),
  );
  if (before && !changed.includes(true)) return before;
  const window = { start: day, end: at };
  const [costs, lacking] = await Promise.all([
    rows(COSTS, "amount", parameters(COSTS, window, "1d", [], {}), signal),
    gaps(window, "1d", [], {}, signal),
  ]);
  return { day, minute, today, minutes, spent: tally(costs, 1, undefined, lacking).whole, lacking };
}

async function total(kind: Subject, measure: string, start: number, end: number, signal: AbortSignal): Promise<bigint> {
  const found = await buckets(kind, parameters(kind, { start, end }, "1d", [], {}), signal);
  return found.flatMap(({ results }) => results).reduce((sum, result) => sum + number(result, measure), 0n);
}

function byMinute(kind: Subject, measure: string, minute: number, signal: AbortSignal): Promise<Rows> {
  const window = { start: minute - (MINUTES - 1) * 60, end: minute + 60 };
  return rows(kind, measure, parameters(kind, window, "1m", [], {}), signal);
}

function together({ minutes, minute }: Seen): Tally {
  const buckets = Array.from({ length: MINUTES }, (_, place) => {
    const start = minute - (MINUTES - 1 - place) * 60;
    return { start, end: start + 60 };
  });
  const all: Row[] = [...minutes].flatMap(([name, found]) =>
    found.rows.flatMap(({ bucket, value }) => {
      const place = ((found.buckets[bucket]?.start ?? 0) - (buckets[0]?.start ?? 0)) / SECONDS["1m"];
      return place >= 0 && place < MINUTES ? [{ bucket: place, names: [subject(name).label], value }] : [];
    }),
  );
  const counted = tally({ buckets, rows: all }, COUNTED.length);
  // In an order that stays, so that a kind keeps its colour while others overtake it.
  const places = new Map(COUNTED.map(({ kind }, place) => [kind.label, place]));
  const place = ({ names: [name] }: Series) => places.get(name ?? "") ?? 0;
  return { ...counted, series: counted.series.toSorted((a, b) => place(a) - place(b)) };
}

export function Live(_: ViewProps) {
  const [seen, setSeen] = useState<Seen>();
  const [error, setError] = useState<Error>();
  const latest = useRef<Seen | undefined>(undefined);
  useEffect(() => {
    const controller = new AbortController();
    let timer = 0;
    const go = async () => {
      const begun = performance.now();
      try {
        if (!document.hidden) {
          latest.current = await look(latest.current, controller.signal);
          setSeen(latest.current);
          setError(undefined);
        }
      } catch (failed) {
        if (!controller.signal.aborted) setError(failed as Error);
      }
      const tookMs = performance.now() - begun;
      const waitMs = Math.min(Math.max(EVERY_MS, (PARTS - 1) * tookMs), EVERY_MS_MAX);
      if (!controller.signal.aborted) timer = setTimeout(go, waitMs);
    };
    go();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, []);
  const calls = seen ? [...seen.today.values()].reduce((sum, one) => sum + one, 0n) : 0n;
  return (
    <>
      <h1 tabindex={-1}>Live</h1>
      {error && <Problem error={new Error(`${error.message} This page goes on trying.`)} />}
      {seen ? (
        <>
          <section class="cards" aria-label="Today">
            <div class="panel card">
              <h2>Calls today</h2>
              <p class="total" data-live="calls">
                <Figure value={calls} measure={CALLS} />
              </p>
            </div>
            <div class="panel card">
              <h2>Spend today</h2>
              <p class="total">
                <Whole of={seen.spent} measure="amount" />
              </p>
              <Lacking found={seen.lacking} />
            </div>
          </section>
          <Minutes seen={seen} />
        </>
      ) : (
        !error && <div class="waiting" style={{ height: "26rem" }} />
      )}
    </>
  );
}

function Minutes({ seen }: { seen: Seen }) {
  const counted = together(seen);
  const last = counted.buckets.at(-1);
  return (
    <section class="panel" aria-label="Calls by minute">
      <div class="summary">
        <h2>Calls by minute</h2>
        <p class="quiet">the last hour, UTC{last && `, to ${tick(last.end, "1m")}`}</p>
      </div>
      <Chart tally={counted} measure={CALLS} width="1m" kind="bars" title="Calls by minute" />
      <Folded counted={counted} measure={CALLS} width="1m" />
      <Scroll label="Calls by kind">
        <table>
          <thead>
            <tr>
              <th scope="col">Kind</th>
              <th scope="col" class="number">
                This minute
              </th>
              <th scope="col" class="number">
                Last hour
              </th>
              <th scope="col" class="number">
                Today
              </th>
            </tr>
          </thead>
          <tbody>
            {COUNTED.map(({ name, kind }) => {
              const place = counted.series.findIndex(({ names }) => names[0] === kind.label);
              const series = counted.series[place];
              if (!series && !seen.today.get(name)) return null;
              return (
                <tr key={name}>
                  <th scope="row">
                    <span class={series ? `swatch ${colour(place, false)}` : "swatch"} />
                    {kind.label}
                  </th>
                  <td class="number">
                    <Figure value={series?.values.at(-1) ?? 0n} measure={CALLS} />
                  </td>
                  <td class="number">
                    <Figure value={series?.total ?? 0n} measure={CALLS} />
                  </td>
                  <td class="number">
                    <Figure value={seen.today.get(name) ?? 0n} measure={CALLS} />
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}
