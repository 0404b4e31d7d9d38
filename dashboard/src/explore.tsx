// Explore: one question, its chart, and the same numbers as a table.

import { useId, useRef, useState } from "preact/hooks";
import { isMoney, share } from "./amount";
import { parameters, type Rows, rows } from "./api";
import { Chart, colour } from "./chart";
import { csv, save } from "./csv";
import { go, useAnswer, useFresh } from "./hooks";
import { SUBJECTS, words } from "./kinds";
import type { ViewProps } from "./main";
import { Answered, Choose, Copy, Scroll, Switch } from "./parts";
import {
  about,
  asCurl,
  asked,
  asPython,
  CHARTS,
  type ChartKind,
  FIRST,
  fromAddress,
  type Question,
  TOPS,
  toAddress,
  width,
  window,
} from "./question";
import { label, type Series, type Tally, tally } from "./series";
import { iso, LAST, moment, now, RANGES, type Width, type Window, widths } from "./time";
import { Times } from "./times";
import { type Gap, gaps, Lacking, said, Whole } from "./unpriced";

export function Explore({ address }: ViewProps) {
  const question = fromAddress(address.searchParams);
  const subject = about(question);
  const put = (changed: Partial<Question>) => go(toAddress({ ...question, ...changed }));
  // What is only looked at otherwise is not asked for again.
  const { of, measure, range, groupBy, filters } = question;
  const fresh = useFresh();
  const key = JSON.stringify([of, measure, range, width(question), groupBy, filters, isNamed(range) && fresh]);
  const answer = useAnswer(key, async (signal): Promise<Found> => {
    const [wide, at] = [width(question), now() + 1];
    const [found, lacking] = await Promise.all([
      rows(subject, measure, asked(question), signal),
      isMoney(measure) ? gaps(window(question), wide, groupBy, filters, signal) : [],
    ]);
    return { question, width: wide, at, found, lacking };
  });
  return (
    <>
      <h1 tabindex={-1}>Explore</h1>
      <Form question={question} put={put} />
      <Filters key={of} question={question} put={put} />
      <Answered answer={answer} height="34rem">
        {(found) => (
          // The numbers on screen belong to the question they answered; how they are shown, to the present one.
          <Result
            {...found}
            question={{ ...found.question, top: question.top, chart: question.chart, table: question.table }}
            put={put}
          />
        )}
      </Answered>
    </>
  );
}

function isNamed(range: Question["range"]): boolean {
  return typeof range === "string";
}

type Put = (changed: Partial<Question>) => void;

const WIDTHS: Readonly<Record<Width, string>> = { "1m": "Minutes", "1h": "Hours", "1d": "Days" };
const OWN = "own";

function Form({ question, put }: { question: Question; put: Put }) {
  const subject = about(question);
  const [first = "", second = ""] = question.groupBy;
  const dimensions = subject.groupBy.map((name) => [name, words(name)] as const);
  const within = window(question);
  const isOwn = typeof question.range !== "string";
  const ranges = Object.entries(RANGES).map(([name, { label }]) => [name, label] as const);
  const other = (of: string) => {
    const { measures, groupBy, filters } = SUBJECTS[of] ?? subject;
    return {
      of,
      measure: measures[0] ?? "",
      groupBy: question.groupBy.filter((name) => groupBy.includes(name)),
      filters: Object.fromEntries(Object.entries(question.filters).filter(([name]) => filters[name])),
    };
  };
  return (
    <div class="form">
      <Choose
        label="Of"
        value={question.of}
        options={Object.entries(SUBJECTS).map(([name, { label }]) => [name, label] as const)}
        onChange={(of) => put(other(of))}
      />
      {subject.measures.length > 1 && (
        <Choose
          label="Measure"
          value={question.measure}
          options={subject.measures.map((name) => [name, words(name)] as const)}
          onChange={(measure) => put({ measure })}
        />
      )}
      <Choose
        label="Range"
        value={isOwn ? OWN : (question.range as string)}
        options={[...ranges, [OWN, "Custom"] as const]}
        onChange={(name) => put({ range: name === OWN ? whole(within) : name, width: null })}
      />
      {isOwn && <Between question={question} put={put} />}
      <Choose
        label="By"
        value={width(question)}
        options={widths(within).map((name) => [name, WIDTHS[name]] as const)}
        onChange={(name) => put({ width: name as Width })}
      />
      <Choose
        label="Group by"
        value={first}
        options={[["", "Nothing"] as const, ...dimensions]}
        onChange={(name) => put({ groupBy: [name, name === second ? "" : second].filter(Boolean) })}
      />
      {first && subject.groupBy.length > 1 && (
        <Choose
          label="and by"
          value={second}
          options={[["", "Nothing"] as const, ...dimensions.filter(([name]) => name !== first)]}
          onChange={(name) => put({ groupBy: [first, name].filter(Boolean) })}
        />
      )}
      <Choose
        label="Show"
        value={String(question.top)}
        options={TOPS.map((top) => [String(top), `Top ${top}`] as const)}
        onChange={(top) => put({ top: Number(top) })}
      />
      <Switch
        label="Chart"
        value={question.chart}
        options={Object.entries(CHARTS)}
        onChange={(chart) => put({ chart: chart as ChartKind })}
      />
    </div>
  );
}

function whole({ start, end }: { start: number; end: number }) {
  return { start, end: Math.ceil(end / 60) * 60 };
}

function Between({ question, put }: { question: Question; put: Put }) {
  const { start, end } = window(question);
  const [isWrong, setIsWrong] = useState(false);
  const field = (text: string, value: number, range: (instant: number) => Window) => (
    <label class="field">
      <span>{text} (UTC)</span>
      <input
        type="datetime-local"
        aria-invalid={isWrong}
        value={iso(value).slice(0, 16)}
        onChange={(event) => {
          const wanted = range(Date.parse(`${event.currentTarget.value}Z`) / 1000);
          const isGood = wanted.start > 0 && wanted.start < wanted.end && wanted.end <= LAST;
          setIsWrong(!isGood);
          if (isGood) put({ range: wanted, width: null });
        }}
      />
    </label>
  );
  return (
    <>
      {field("From", start, (instant) => ({ start: instant, end }))}
      {field("To", end, (instant) => ({ start, end: instant }))}
      {isWrong && (
        <p class="wrong" role="alert">
          Give two times, From before To. The chart still shows the former range.
        </p>
      )}
    </>
  );
}

const COMPLETED_MAX = 1000;

function Filters({ question, put }: { question: Question; put: Put }) {
  const subject = about(question);
  const dimensions = Object.keys(subject.filters);
  const [dimension, setDimension] = useState(dimensions[0] ?? "");
  const [text, setText] = useState("");
  const [isWanted, setIsWanted] = useState(false);
  const list = useId();
  const input = useRef<HTMLInputElement>(null);
  const { start, end } = window(question);
  // What there is to choose from, asked for once somebody is about to choose.
  const key = isWanted ? JSON.stringify([question.of, dimension, question.range]) : "";
  const known = useAnswer(key, async (signal) => {
    if (!key) return [];
    const all = parameters(subject, { start, end }, "all", [dimension], {});
    const [found, lacking] = await Promise.all([
      rows(subject, question.measure, all, signal),
      isMoney(question.measure) ? gaps({ start, end }, "all", [dimension], {}, signal) : [],
    ]);
    const { series } = tally(found, COMPLETED_MAX, undefined, lacking);
    return series.flatMap(({ names: [name] }) => (name ? [name] : []));
  });
  const chosen = (name: string) => question.filters[name] ?? [];
  const set = (name: string, values: string[]) => {
    const { [name]: _, ...others } = question.filters;
    put({ filters: values.length ? { ...others, [name]: values } : others });
  };
  const add = (event: Event) => {
    event.preventDefault();
    const value = text.trim();
    if (!value) return;
    set(dimension, dimension === "batch" ? [value] : [...new Set([...chosen(dimension), value])]);
    setText("");
  };
  return (
    <form class="filters" onSubmit={add}>
      <Choose
        label="Filter"
        value={dimension}
        options={dimensions.map((name) => [name, words(name)] as const)}
        onChange={setDimension}
      />
      <label class="field">
        <span class="unseen">{words(dimension)} to show</span>
        <input
          ref={input}
          list={list}
          value={text}
          maxLength={300}
          placeholder={`${words(dimension)}…`}
          onFocus={() => setIsWanted(true)}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <datalist id={list}>
          {(known.isLoading || known.error ? [] : (known.value ?? [])).map((name) => (
            <option key={name} value={name} />
          ))}
        </datalist>
      </label>
      <button type="submit">Add</button>
      {Object.entries(question.filters).flatMap(([name, values]) =>
        values.map((value) => (
          <button
            type="button"
            key={`${name} ${value}`}
            class="chip"
            title={value}
            aria-label={`Remove the filter ${words(name)} ${value}`}
            onClick={() => {
              set(
                name,
                chosen(name).filter((one) => one !== value),
              );
              input.current?.focus();
            }}
          >
            <span class="quiet">{words(name)}</span> <bdi>{value}</bdi> <span aria-hidden="true">×</span>
          </button>
        )),
      )}
    </form>
  );
}

interface Found {
  question: Question;
  width: Width;
  found: Rows;
  /** What is in no amount of these. */
  lacking: Gap[];
  /** When it was asked. */
  at: number;
}

function Result({ question, width: wide, found, lacking, at, put }: Found & { put: Put }) {
  const subject = about(question);
  const counted = tally(found, question.top, subject.isLevel ? at : undefined, lacking);
  const title = `${subject.label}${question.measure === "amount" ? "" : `, ${words(question.measure).toLowerCase()}`}`;
  const first = counted.buckets[0];
  const last = counted.buckets.at(-1);
  const look = (range: Window) => put({ range, width: null });
  return (
    <>
      <section class="panel" aria-label="Chart">
        <div class="summary">
          <h2>{title}</h2>
          <p class="total" role="status" aria-label="Total">
            <Whole of={counted.whole} measure={question.measure} />
            {subject.isLevel && <span class="quiet"> on average</span>}
          </p>
          {first && last && (
            <p class="quiet">
              {moment(first.start)} to {moment(last.end)}
            </p>
          )}
        </div>
        <Lacking found={lacking} />
        <Chart
          tally={counted}
          measure={question.measure}
          width={wide}
          kind={question.chart}
          title={title}
          look={look}
        />
      </section>
      <section class="panel" aria-label="Numbers">
        <div class="tools">
          <Switch
            label="Table"
            value={question.table}
            options={[
              ["totals", "Totals"],
              ["times", "Over time"],
            ]}
            onChange={(table) => put({ table: table as Question["table"] })}
          />
          <span class="gap" />
          <Copy text={() => asCurl(question)}>Copy as curl</Copy>
          <Copy text={() => asPython(question)}>Copy as Python</Copy>
          <button type="button" onClick={() => save(fileName(question, counted), csv(question, counted))}>
            CSV
          </button>
        </div>
        {question.table === "totals" ? (
          <Totals question={question} counted={counted} put={put} />
        ) : (
          <Times measure={question.measure} counted={counted} width={wide} look={look} />
        )}
      </section>
    </>
  );
}

function fileName({ of, measure }: Question, { buckets }: Tally): string {
  return `tallybook-${of}-${measure}-${iso(buckets[0]?.start ?? 0).slice(0, 10)}.csv`;
}

type Order = "name" | "value";

function Totals({ question, counted, put }: { question: Question; counted: Tally; put: Put }) {
  const { groupBy, measure } = question;
  const [order, setOrder] = useState<{ by: Order; isRising: boolean }>({ by: "value", isRising: false });
  const listed = counted.series.map((series, place) => ({ series, place }));
  listed.sort((a, b) => {
    if (a.series.isRest !== b.series.isRest) return a.series.isRest ? 1 : -1;
    const by = order.by === "name" ? label(a.series).localeCompare(label(b.series)) : compare(a.series, b.series);
    return order.isRising ? by : -by;
  });
  const heading = (by: Order, text: string, isNumber: boolean) => (
    <th
      scope="col"
      class={isNumber ? "number" : undefined}
      aria-sort={order.by === by ? (order.isRising ? "ascending" : "descending") : "none"}
    >
      <button
        type="button"
        onClick={() => setOrder({ by, isRising: order.by === by ? !order.isRising : by === "name" })}
      >
        {text}
        <span aria-hidden="true">{order.by === by ? (order.isRising ? " ↑" : " ↓") : ""}</span>
      </button>
    </th>
  );
  const hasGaps = counted.whole.lacking.size > 0;
  if (!counted.series.length) return <p class="nothing">Nothing in this range. Choose another, or fewer filters.</p>;
  return (
    <Scroll label="Totals">
      <table>
        <thead>
          <tr>
            {heading("name", groupBy.map(words).join(" and ") || "All", false)}
            {heading("value", words(measure), true)}
            {hasGaps && (
              <th scope="col" class="number">
                Unpriced
              </th>
            )}
            <th scope="col" class="number">
              Share
            </th>
          </tr>
        </thead>
        <tbody>
          {listed.map(({ series, place }) => (
            <tr key={JSON.stringify(series.names) + series.isRest}>
              <th scope="row">
                <span class={`swatch ${colour(place, series.isRest)}`} />
                <Name series={series} question={question} put={put} />
              </th>
              <td class="number">
                <Whole of={series} measure={measure} />
              </td>
              {hasGaps && <td class="number lacking">{said(series.lacking)}</td>}
              <td class="number quiet">{series.isPriced && share(series.total, counted.whole.total)}</td>
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr>
            <th scope="row">Total</th>
            <td class="number">
              <Whole of={counted.whole} measure={measure} />
            </td>
            {hasGaps && <td class="number lacking">{said(counted.whole.lacking)}</td>}
            <td />
          </tr>
        </tfoot>
      </table>
    </Scroll>
  );
}

function compare(a: Series, b: Series): number {
  return a.total < b.total ? -1 : a.total > b.total ? 1 : 0;
}

/** The name of a series, which leads into it where the API can select by it. */
function Name({ series, question, put }: { series: Series; question: Question; put: Put }) {
  const { groupBy, filters } = question;
  const allowed = about(question).filters;
  if (series.isRest || !groupBy.length) return <span>{label(series)}</span>;
  return (
    <>
      {series.names.map((name, at) => {
        const dimension = groupBy[at] ?? "";
        const separator = at ? " · " : "";
        if (name === null || !allowed[dimension] || filters[dimension]?.length === 1) {
          return (
            <span key={dimension}>
              {separator}
              <bdi title={name ?? ""}>{name ?? "(none)"}</bdi>
            </span>
          );
        }
        return (
          <span key={dimension}>
            {separator}
            <button
              type="button"
              class="into"
              title={`Only ${name}`}
              onClick={() => put({ filters: { ...filters, [dimension]: [name] } })}
            >
              <bdi>{name}</bdi>
            </button>
          </span>
        );
      })}
    </>
  );
}

/** The address of a question in Explore. */
export function exploring(changed: Partial<Question>): string {
  return toAddress({ ...FIRST, ...changed });
}
