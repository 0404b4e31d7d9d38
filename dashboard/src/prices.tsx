// Prices: what was used and has none, and those in force.

import { useId, useState } from "preact/hooks";
import { get, type List, parameters, rows } from "./api";
import { quoted } from "./csv";
import { useAnswer } from "./hooks";
import { subject } from "./kinds";
import { Answered, Copy, Scroll } from "./parts";
import { tally } from "./series";
import { bucket, midnight, moment, now, SECONDS } from "./time";

interface NoPrice {
  kind: string;
  service_tier: string | null;
  batch: boolean | null;
  model: string | null;
  line_item: string;
  /** What is counted, as price files call it. */
  counted: string;
  quantity: number;
  quantity_unit: string | null;
  until: number;
}

/** For how much of each quantity a price is usually given. */
const PRICED_BY: Readonly<Record<string, string>> = {
  tokens: "1M tokens",
  images: "image",
  characters: "1M characters",
  duration_seconds: "minute",
};
const COUNT = new Intl.NumberFormat();
const PRICE = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 12 });

export function Unpriced() {
  // Not counted: of all there ever was, counting would take seconds. So it was last used at some time of a day.
  const answer = useAnswer("unpriced", (signal) =>
    get<List<NoPrice>>("/v1/organization/costs/unpriced", [["count_events", "false"]], signal),
  );
  return (
    <section class="panel" aria-label="Without a price">
      <h2 id="unpriced">Without a price</h2>
      <Answered answer={answer} height="4rem">
        {({ data }) =>
          data.length ? (
            <>
              <p>
                Put a price to each of these, or a factor of the standard price, in a price file, have the server read
                it with <code>--price-file</code>, and charge what was used already with{" "}
                <code>tallybook costs rerate</code>.
              </p>
              <PriceFile items={data} />
              <Scroll label="All without a price">
                <table>
                  <thead>
                    <tr>
                      <th scope="col">Line item</th>
                      <th scope="col">Kind</th>
                      <th scope="col">If</th>
                      <th scope="col" class="number">
                        Quantity
                      </th>
                      <th scope="col">Last used</th>
                    </tr>
                  </thead>
                  <tbody>
                    {data.map((item) => (
                      <tr key={JSON.stringify(item)}>
                        <th scope="row">
                          <bdi title={item.line_item}>{item.line_item}</bdi>
                        </th>
                        <td>{item.kind}</td>
                        <td>{[item.service_tier, item.batch && "batch"].filter(Boolean).join(", ")}</td>
                        <td class="number">
                          {COUNT.format(item.quantity)} {item.quantity_unit?.replaceAll("_", " ")}
                        </td>
                        <td>{bucket(item.until, "1d")}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </Scroll>
            </>
          ) : (
            <p class="nothing">Everything that was used has a price.</p>
          )
        }
      </Answered>
    </section>
  );
}

/** Tiers that are the standard one, as price files have it. */
const STANDARD = ["", "auto", "default", "standard"];

/** Lines of a price file with the prices left out: of a model that has some price, the factor of its tier or batch. */
function priceFile(items: NoPrice[]): string[] {
  // A name with a space would be two there, and one with a star at its end stands for others.
  const nameable = items.filter(({ model }) => model && !/[\s*]/.test(model));
  const tier = ({ service_tier }: NoPrice) => (STANDARD.includes(service_tier ?? "") ? "" : (service_tier ?? ""));
  const isStandard = (item: NoPrice) => !tier(item) && !item.batch;
  const unpriced = new Set(nameable.filter(isStandard).map(({ model, kind }) => `${model} ${kind}`));
  const lines = nameable.flatMap((item): Record<string, string>[] => {
    const { model, kind, counted, batch, quantity_unit } = item;
    const line = { model: model ?? "", service_tier: tier(item), batch: batch ? "true" : "" };
    if (!isStandard(item) && !unpriced.has(`${model} ${kind}`)) return [line];
    const unit = PRICED_BY[quantity_unit ?? ""];
    return unit ? [{ ...line, kind, counted, unit }] : [];
  });
  const columns = ["model", "kind", "counted", "service_tier", "batch", "unit"].filter((column) =>
    lines.some((line) => line[column]),
  );
  if (lines.some((line) => line.unit)) columns.push("price");
  if (lines.some((line) => !line.unit)) columns.push("factor");
  const rows = lines.map((line) => columns.map((column) => quoted(line[column] ?? "")));
  return lines.length ? [...new Set([columns, ...rows].map((row) => row.join(",")))] : [];
}

function PriceFile({ items }: { items: NoPrice[] }) {
  const lines = priceFile(items);
  if (!lines.length) return null;
  return (
    <>
      <Scroll label="A price file to fill in">
        <pre>{lines.join("\n")}</pre>
      </Scroll>
      <p>
        <Copy text={() => `${lines.join("\n")}\n`}>Copy as a price file</Copy>
      </p>
    </>
  );
}

interface Price {
  provider: string;
  model: string;
  kind: string;
  counted: string;
  service_tier: string | null;
  batch: boolean | null;
  above_input_tokens: number | null;
  size: string | null;
  quality: string | null;
  context_level: string | null;
  inference_geo: string | null;
  hours: string | null;
  free: number | null;
  unit: string;
  price: number;
  source: string;
  from: number | null;
  until: number | null;
}

interface Prices extends List<Price> {
  book: { sources: { name: string; version: string; entries: number }[] };
}

/** Models of the last 30 days, the most expensive first. */
async function used(signal: AbortSignal): Promise<string[]> {
  const costs = subject("costs");
  const window = { start: midnight() - 29 * SECONDS["1d"], end: now() + 1 };
  const { series } = tally(
    await rows(costs, "amount", parameters(costs, window, "all", ["model"], {}), signal),
    Number.POSITIVE_INFINITY,
  );
  return series.flatMap(({ names: [name] }) => (name ? [name] : []));
}

function conditions({
  service_tier,
  batch,
  above_input_tokens,
  size,
  quality,
  context_level,
  inference_geo,
  hours,
  free,
}: Price): string {
  return [
    service_tier,
    batch === null ? null : batch ? "batch" : "no batch",
    above_input_tokens === null ? null : `above ${COUNT.format(above_input_tokens)} input tokens`,
    size,
    quality,
    context_level,
    inference_geo === null ? null : `run in ${inference_geo}`,
    hours,
    free === null ? null : `${COUNT.format(free)} GiB free`,
  ]
    .filter(Boolean)
    .join(", ");
}

export function Prices() {
  const list = useId();
  const [text, setText] = useState<string>();
  const [chosen, setChosen] = useState<string>();
  const models = useAnswer("models", used);
  const model = chosen ?? models.value?.[0] ?? "";
  const answer = useAnswer(model, async (signal) =>
    model ? { model, ...(await get<Prices>("/v1/organization/costs/prices", [["model", model]], signal)) } : null,
  );
  return (
    <section class="panel" aria-label="Prices in force">
      <h2 id="prices">Prices in force</h2>
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          setChosen((text ?? model).trim());
        }}
      >
        <label class="field">
          <span>Model</span>
          <input
            required
            list={list}
            maxLength={256}
            placeholder="gpt-4o"
            value={text ?? model}
            onInput={(event) => setText(event.currentTarget.value)}
          />
          <datalist id={list}>
            {(models.value ?? []).map((name) => (
              <option key={name} value={name} />
            ))}
          </datalist>
        </label>
        <button type="submit">Show</button>
      </form>
      <Answered answer={answer} height="12rem">
        {(prices) =>
          prices && (
            <>
              {prices.data.length ? (
                <Scroll label="Prices">
                  <table>
                    <thead>
                      <tr>
                        <th scope="col">Provider</th>
                        <th scope="col">Kind</th>
                        <th scope="col">Counted</th>
                        <th scope="col">If</th>
                        <th scope="col" class="number">
                          US dollars
                        </th>
                        <th scope="col">For</th>
                        <th scope="col">From</th>
                        <th scope="col">Until</th>
                      </tr>
                    </thead>
                    <tbody>
                      {prices.data.map((price) => (
                        <tr key={JSON.stringify(price)}>
                          <th scope="row">{price.provider}</th>
                          <td>{price.kind}</td>
                          <td>{price.counted}</td>
                          <td>{conditions(price)}</td>
                          <td class="number">{PRICE.format(price.price)}</td>
                          <td>{price.unit}</td>
                          <td>{price.from === null ? "Always" : moment(price.from)}</td>
                          <td>{price.until === null ? "No end" : moment(price.until)}</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                </Scroll>
              ) : (
                <p class="nothing">
                  <bdi>{prices.model}</bdi> has no price.
                </p>
              )}
              <p class="quiet">
                From{" "}
                {prices.book.sources
                  .map(({ name, version, entries }) =>
                    [`${COUNT.format(entries)} prices of ${name}`, version].filter(Boolean).join(" "),
                  )
                  .join(", ")}
                .
              </p>
            </>
          )
        }
      </Answered>
    </section>
  );
}
