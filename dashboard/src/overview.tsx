// Overview: what was spent and used today, in 7 and in 30 days, by whom and on what; and what needs a hand.

import { approximate, brief, change, exact, ratio, share, show } from "./amount";
import { buckets, get, type List, number, parameters, type Result, type Rows, rows } from "./api";
import { Chart, colour } from "./chart";
import { Empty } from "./empty";
import { exploring } from "./explore";
import { type Answer, useAnswer } from "./hooks";
import { KINDS, type Subject, subject, words } from "./kinds";
import type { ViewProps } from "./main";
import { Answered, Figure } from "./parts";
import { label, tally } from "./series";
import { midnight, now, SECONDS, type Width, type Window } from "./time";

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
  before: bigint;
}

/** For each headline, sums of each period and of the one before it, which ends at the same time of day. */
async function compare(kinds: readonly Subject[], at: number, signal: AbortSignal): Promise<Compared[][]> {
  const today = midnight(at);
  const days = async (window: Window): Promise<Result[][]> => {
    const found = await Promise.all(kinds.map((kind) => buckets(kind, parameters(kind, window, "1d", [], {}), signal)));
    return found.flatMap((kind) => kind.map(({ results }, day) => results.map((result) => ({ ...result, day }))));
  };
  const longest = PERIODS[PERIODS.length - 1]?.days ?? 1;
  const [present, ...earlier] = await Promise.all([
    days({ start: today - (longest - 1) * DAY, end: at }),
    ...PERIODS.map((period) => days({ start: today - (2 * period.days - 1) * DAY, end: at - period.days * DAY })),
  ]);
  const add = (results: Result[], measures: readonly string[]) =>
    measures.reduce(
      (sum, measure) => results.reduce((so, result) => so + (measure in result ? number(result, measure) : 0n), sum),
      0n,
    );
  return HEADLINES.map(({ measures }) =>
    PERIODS.map((period, place) => ({
      now: add(
        (present ?? []).flat().filter(({ day }) => (day as number) >= longest - period.days),
        measures,
      ),
      before: add((earlier[place] ?? []).flat(), measures),
    })),
  );
}

const COSTS = subject("costs");
/** Searches count their model's requests, too, which are those of completions once more. */
const MODELS = KINDS.flatMap(([, kind]) => (kind.calls === "num_model_requests" ? [kind] : []));

export function Overview(_: ViewProps) {
  const at = now() + 1;
  const spend = useAnswer("spend", (signal) => compare([COSTS], at, signal));
  const used = useAnswer("used", (signal) => compare(MODELS, at, signal));
  const isEmpty = [...(spend.value ?? [null]), ...(used.value ?? [null])].every((compared) =>
    compared?.every(({ now, before }) => now === 0n && before === 0n),
  );
  return (
    <>
      <h1 tabindex={-1}>Overview</h1>
      <ToMend />
      {isEmpty ? (
        <Empty />
      ) : (
        <>
          <section class="cards" aria-label="Headlines">
            {HEADLINES.map(({ label, measure }, place) => (
              <Headline key={label} label={label} measure={measure} place={place} answer={place ? used : spend} />
            ))}
          </section>
          <Tops at={at} />
        </>
      )}
    </>
  );
}

function Headline({
  label,
  measure,
  place: headline,
  answer,
}: {
  label: string;
  measure: string;
  place: number;
  answer: Answer<Compared[][]>;
}) {
  return (
    <section class="panel card" aria-label={label}>
      <h2>{label}</h2>
      <Answered answer={answer} height="4.5rem">
        {(compared) => (
          <dl>
            {PERIODS.map((period, place) => {
              const { now, before } = compared[headline]?.[place] ?? { now: 0n, before: 0n };
              const moved = change(now, before);
              return (
                <div key={period.label}>
                  <dt>{period.label}</dt>
                  <dd>
                    <data value={exact(now, measure)} title={show(now, measure)}>
                      {brief(approximate(now, measure), measure)}
                    </data>
                    <span class="change" title={`${show(before, measure)}, ${period.before}`}>
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
    </section>
  );
}

function Tops({ at }: { at: number }) {
  const window = { start: midnight(at) - 29 * DAY, end: at };
  const by = (dimension: string, width: Width | "all") =>
    // biome-ignore lint/correctness/useHookAtTopLevel: called as often each time
    useAnswer(dimension, (signal) => rows(COSTS, "amount", parameters(COSTS, window, width, [dimension], {}), signal));
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
          {(found) => (
            <Chart tally={tally(found, 8)} measure="amount" width="1d" kind="bars" title="Spend by day and model" />
          )}
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

function TopFive({ dimension, answer }: { dimension: string; answer: Answer<Rows> }) {
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
        {(found) => {
          const { series, total } = tally(found, TOP);
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
                      <Figure value={one.total} measure="amount" />
                    </td>
                    <td class="number quiet">{share(one.total, total)}</td>
                    <td>
                      <div
                        class={`bar ${one.isRest ? "rest" : ""}`}
                        style={{ width: `${100 * ratio(one.total, total)}%` }}
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

interface Unpriced {
  model: string | null;
  line_item: string;
}

/** What is not in the numbers, and the way to mend that. */
function ToMend() {
  const unpriced = useAnswer("unpriced", (signal) =>
    get<List<Unpriced>>(
      "/v1/organization/costs/unpriced",
      [
        ["start_time", String(midnight() - 29 * DAY)],
        ["count_events", "false"],
      ],
      signal,
    ),
  );
  const quarantine = useAnswer("quarantine", (signal) =>
    get<List<unknown>>("/v1/organization/usage/quarantine", [["limit", "100"]], signal),
  );
  const items = unpriced.value?.data ?? [];
  const models = [...new Set(items.map(({ model, line_item }) => model ?? line_item))];
  const waiting = quarantine.value?.data.length ?? 0;
  return (
    <>
      {models.length > 0 && (
        <div class="note">
          <p>
            <strong>
              {items.length} line {items.length === 1 ? "item has" : "items have"} no price
            </strong>{" "}
            and {items.length === 1 ? "is" : "are"} not in the spend: <bdi>{models.slice(0, 3).join(", ")}</bdi>
            {models.length > 3 && ` and ${models.length - 3} more`}.
          </p>
          <a href="/manage#unpriced">Give a price</a>
        </div>
      )}
      {waiting > 0 && (
        <div class="note">
          <p>
            <strong>
              {waiting}
              {quarantine.value?.has_more && "+"} {waiting === 1 ? "event is" : "events are"} in quarantine
            </strong>{" "}
            and not counted.
          </p>
          <a href="/manage#quarantine">Mend and replay</a>
        </div>
      )}
    </>
  );
}
