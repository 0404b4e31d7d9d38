// Overview: what was spent and used today, in 7 and in 30 days, by whom and on what; and what needs a hand.

import { approximate, brief, change, exact, ratio, share, show } from "./amount";
import { buckets, get, type List, number, parameters, Refusal, type Rows, rows } from "./api";
import { Chart, colour } from "./chart";
import { Empty } from "./empty";
import { exploring } from "./explore";
import { type Answer, useAnswer, useFresh } from "./hooks";
import { KINDS, type Subject, subject, words } from "./kinds";
import type { ViewProps } from "./main";
import { Answered } from "./parts";
import { label, tally } from "./series";
import { floor, midnight, now, SECONDS, type Width, type Window } from "./time";
import { Folded } from "./times";
import { type Gap, gaps, Lacking, More, said, sum, Unpriced, Whole } from "./unpriced";

const DAY = SECONDS["1d"];
const PERIODS = [
  { days: 1, label: "Today", before: "same time yesterday" },
  { days: 7, label: "7 days", before: "7 days before" },
  { days: 30, label: "30 days", before: "30 days before" },
] as const;
const TOP = 5;

/** What is told of each period: a sum over results of all kinds that have it. */
const HEADLINES = [
  { label: "Spend", measure: "amount", measures: ["amount"] },
  { label: "Requests", measure: "num_model_requests", measures: ["num_model_requests"] },
  { label: "Tokens", measure: "input_tokens", measures: ["input_tokens", "output_tokens"] },
] as const;

interface Compared {
  now: bigint;
  /** Whether there was anything to add up. */
  isAny: boolean;
  /** Null where it cannot be told any more. */
  before: bigint | null;
}

/** A total of each day of a window, by measure. */
type Days = ReadonlyMap<string, bigint>[];

const LONGEST = Math.max(...PERIODS.map(({ days }) => days));

async function days(kinds: readonly Subject[], window: Window, signal: AbortSignal): Promise<Days> {
  const found = await Promise.all(kinds.map((kind) => buckets(kind, parameters(kind, window, "1d", [], {}), signal)));
  const sums: Map<string, bigint>[] = [];
  for (const [place, kind] of found.entries()) {
    for (const measure of kinds[place]?.measures ?? []) {
      for (const [day, { results }] of kind.entries()) {
        sums[day] ??= new Map();
        if (!results.length) continue;
        const sum = results.reduce((so, result) => so + number(result, measure), 0n);
        sums[day].set(measure, (sums[day].get(measure) ?? 0n) + sum);
      }
    }
  }
  return sums;
}

/** The days before a period, up to the same time of day: to the minute or, where minutes are not kept, the hour. */
async function before(
  kinds: readonly Subject[],
  length: number,
  at: number,
  signal: AbortSignal,
): Promise<Days | null> {
  const end = at - length * DAY;
  const start = midnight(at - 1) - (2 * length - 1) * DAY;
  for (const step of [SECONDS["1m"], SECONDS["1h"]]) {
    try {
      return floor(end, step) > start ? await days(kinds, { start, end: floor(end, step) }, signal) : [];
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== "not_kept") throw error;
    }
  }
  return null;
}

/** For each headline, sums of each period and of the one before it. */
async function compare(kinds: readonly Subject[], at: number, signal: AbortSignal): Promise<Compared[][]> {
  const [present, ...earlier] = await Promise.all([
    days(kinds, { start: midnight(at - 1) - (LONGEST - 1) * DAY, end: at }, signal),
    ...PERIODS.map((period) => before(kinds, period.days, at, signal)),
  ]);
  const add = (sums: Days, measures: readonly string[]) =>
    sums.reduce((sum, day) => measures.reduce((so, measure) => so + (day.get(measure) ?? 0n), sum), 0n);
  return HEADLINES.map(({ measures }) =>
    PERIODS.map((period, place) => ({
      now: add(present?.slice(-period.days) ?? [], measures),
      isAny: (present?.slice(-period.days) ?? []).some((day) => measures.some((measure) => day.has(measure))),
      before: earlier[place] ? add(earlier[place], measures) : null,
    })),
  );
}

const COSTS = subject("costs");
/** Searches count their model's requests, too, which are those of completions once more. */
const MODELS = KINDS.flatMap(([, kind]) => (kind.calls === "num_model_requests" ? [kind] : []));

export function Overview(_: ViewProps) {
  const fresh = useFresh();
  const at = now() + 1;
  const spend = useAnswer(`spend ${fresh}`, (signal) => compare([COSTS], at, signal));
  const used = useAnswer(`used ${fresh}`, (signal) => compare(MODELS, at, signal));
  const unpriced = useAnswer(`unpriced ${fresh}`, (signal) => gaps(longest(at), "1d", [], {}, signal));
  const isNothing = (answer: Answer<Compared[][]>) =>
    answer.value?.every((compared) => compared.every(({ now, before }) => now === 0n && !before));
  if (isNothing(spend) && isNothing(used) && unpriced.value?.length === 0) {
    return (
      <>
        <h1 tabindex={-1}>Overview</h1>
        <Empty />
      </>
    );
  }
  return (
    <>
      <h1 tabindex={-1}>Overview</h1>
      <section class="cards" aria-label="Headlines">
        {HEADLINES.map(({ label, measure }, place) => (
          <Headline
            key={label}
            label={label}
            measure={measure}
            place={place}
            answer={place ? used : spend}
            lacking={place ? [] : (unpriced.value ?? [])}
            at={at}
          />
        ))}
        <ToMend unpriced={unpriced} fresh={fresh} />
      </section>
      <Tops at={at} fresh={fresh} />
    </>
  );
}

function Headline({
  label,
  measure,
  place: headline,
  answer,
  lacking,
  at,
}: {
  label: string;
  measure: string;
  place: number;
  answer: Answer<Compared[][]>;
  lacking: Gap[];
  at: number;
}) {
  return (
    <section class="panel card" aria-label={label}>
      <h2>{label}</h2>
      <Answered answer={answer} height="4.5rem">
        {(compared) => (
          <dl>
            {PERIODS.map((period, place) => {
              const { now, isAny, before } = compared[headline]?.[place] ?? { now: 0n, isAny: false, before: null };
              const from = midnight(at - 1) - (period.days - 1) * DAY;
              const missing = sum(lacking.filter(({ start }) => start >= from));
              const moved = before === null ? null : change(now, before);
              return (
                <div key={period.label}>
                  <dt>{period.label}</dt>
                  <dd>
                    <span class="headline">
                      {isAny || !missing.size ? (
                        <data value={exact(now, measure)} title={show(now, measure)}>
                          {brief(approximate(now, measure), measure)}
                        </data>
                      ) : (
                        <Unpriced lacking={missing} />
                      )}
                      {isAny && missing.size > 0 && <More lacking={missing} />}
                    </span>
                    <span
                      class="change"
                      title={before === null ? "No longer kept" : `${show(before, measure)}, ${period.before}`}
                    >
                      {moved ?? "–"}
                      <span class="unseen"> against {period.before}</span>
                    </span>
                  </dd>
                </div>
              );
            })}
          </dl>
        )}
      </Answered>
      {lacking.length > 0 && <p class="lacking">Unpriced, and in no amount: {said(sum(lacking))} in 30 days.</p>}
    </section>
  );
}

/** The longest period, today included. */
function longest(at: number): Window {
  return { start: midnight(at - 1) - (LONGEST - 1) * DAY, end: at };
}

/** Amounts, and what is in none of them. */
interface Spend {
  found: Rows;
  lacking: Gap[];
}

function Tops({ at, fresh }: { at: number; fresh: number }) {
  const window = longest(at);
  const by = (dimension: string, width: Width | "all") =>
    // biome-ignore lint/correctness/useHookAtTopLevel: called as often each time
    useAnswer(`${dimension} ${fresh}`, async (signal): Promise<Spend> => {
      const [found, lacking] = await Promise.all([
        rows(COSTS, "amount", parameters(COSTS, window, width, [dimension], {}), signal),
        gaps(window, width, [dimension], {}, signal),
      ]);
      return { found, lacking };
    });
  const models = by("model", "1d");
  const others = ["project_id", "user_id", "api_key_id"].map((dimension) => ({
    dimension,
    answer: by(dimension, "all"),
  }));
  return (
    <>
      <section class="panel" aria-label="Spend by day and model">
        <div class="summary">
          <h2>Spend by day and model</h2>
          <p class="quiet">30 days, UTC</p>
          <span class="gap" />
          <a href={exploring({})}>Explore</a>
        </div>
        <Answered answer={models} height="17rem">
          {({ found, lacking }) => {
            const counted = tally(found, 8, undefined, lacking);
            return (
              <>
                <Lacking found={lacking} />
                <Chart tally={counted} measure="amount" width="1d" kind="bars" title="Spend by day and model" />
                <Folded counted={counted} measure="amount" width="1d" />
              </>
            );
          }}
        </Answered>
      </section>
      <section class="cards halves" aria-label="Top five of 30 days">
        {[{ dimension: "model", answer: models }, ...others].map(({ dimension, answer }) => (
          <TopFive key={dimension} dimension={dimension} answer={answer} />
        ))}
      </section>
    </>
  );
}

function TopFive({ dimension, answer }: { dimension: string; answer: Answer<Spend> }) {
  const title = dimension === "model" ? "Models" : `${words(dimension)}s`;
  return (
    <section class="panel card" aria-label={`Top ${title.toLowerCase()}`}>
      <div class="summary">
        <h2>{title}</h2>
        <span class="gap" />
        <a href={exploring({ groupBy: [dimension] })} aria-label={`All ${title.toLowerCase()}`}>
          All
        </a>
      </div>
      <Answered answer={answer} height="9rem">
        {({ found, lacking }) => {
          const { series, whole } = tally(found, TOP, undefined, lacking);
          return (
            <table class="top">
              <colgroup>
                <col />
                <col class="spend" />
                <col class="share" />
                <col class="bars" />
              </colgroup>
              <thead class="unseen">
                <tr>
                  <th scope="col">{words(dimension)}</th>
                  <th scope="col">Spend</th>
                  <th scope="col">Share</th>
                  <td />
                </tr>
              </thead>
              <tbody>
                {series.map((one, place) => (
                  <tr key={label(one)}>
                    <th scope="row">
                      {dimension === "model" && <span class={`swatch ${colour(place, one.isRest)}`} />}
                      {one.isRest || one.names[0] == null ? (
                        label(one)
                      ) : (
                        <a
                          href={exploring({ filters: { [dimension]: [one.names[0]] }, groupBy: [next(dimension)] })}
                          title={one.names[0]}
                        >
                          <bdi>{one.names[0]}</bdi>
                        </a>
                      )}
                    </th>
                    <td class="number">
                      <Whole of={one} measure="amount" />
                    </td>
                    <td class="number quiet">{one.isPriced && share(one.total, whole.total)}</td>
                    <td>
                      <div
                        class={`bar ${one.isRest ? "rest" : ""} ${one.lacking.size ? "short" : ""}`}
                        style={{ width: `${100 * Math.max(0, ratio(one.total, whole.total))}%` }}
                      />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          );
        }}
      </Answered>
    </section>
  );
}

function next(dimension: string): string {
  return dimension === "model" ? "project_id" : "model";
}

/** What is not in the numbers, and the way to mend that. */
function ToMend({ unpriced, fresh }: { unpriced: Answer<Gap[]>; fresh: number }) {
  const quarantine = useAnswer(`quarantine ${fresh}`, (signal) =>
    get<List<unknown>>("/v1/organization/usage/quarantine", [["limit", "100"]], signal),
  );
  return (
    <section class="panel card" aria-label="To mend">
      <h2>To mend</h2>
      <Answered answer={unpriced} height="1.5rem">
        {(found) => {
          const items = new Set(found.map(({ item }) => item));
          return items.size ? (
            <p class="mend" title={[...items].join("\n")}>
              <strong>
                {items.size} line {items.size === 1 ? "item has" : "items have"} no price
              </strong>{" "}
              <a href="/manage#unpriced">Give a price</a>
            </p>
          ) : (
            <p class="quiet">Everything has a price.</p>
          );
        }}
      </Answered>
      <Answered answer={quarantine} height="1.5rem">
        {({ data, has_more }) =>
          data.length ? (
            <p class="mend">
              <strong>
                {data.length}
                {has_more && "+"} {data.length === 1 ? "event is" : "events are"} in quarantine
              </strong>{" "}
              <a href="/manage#quarantine">Mend and replay</a>
            </p>
          ) : (
            <p class="quiet">Nothing is in quarantine.</p>
          )
        }
      </Answered>
    </section>
  );
}
