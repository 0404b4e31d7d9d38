// The numbers of a chart as a table: a row for each bucket, a column for each series.

import { useState } from "preact/hooks";
import { colour } from "./chart";
import { Scroll } from "./parts";
import { label, type Series, type Tally } from "./series";
import { bucket, into, tick, type Width, type Window } from "./time";
import { Amount } from "./unpriced";

interface Shown {
  counted: Tally;
  measure: string;
  width: Width;
  /** Looks into a bucket. */
  look?: (window: Window) => void;
}

export function Times({ counted, measure, width, look }: Shown) {
  return (
    <Scroll label="Numbers over time" isTall>
      <table>
        <thead>
          <tr>
            <th scope="col">From (UTC)</th>
            <th scope="col" class="number">
              Total
            </th>
            {counted.series.map((series, place) => (
              <th scope="col" class="number" key={JSON.stringify(series.names) + series.isRest}>
                <span class={`swatch ${colour(place, series.isRest)}`} />
                <bdi>{label(series)}</bdi>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {counted.buckets.map((window, place) => (
            <tr key={window.start}>
              <th scope="row">
                {look && width !== "1m" ? (
                  <button
                    type="button"
                    class="into"
                    title={`Into ${tick(window.start, width)}`}
                    onClick={() => look(into(window, window, width))}
                  >
                    {bucket(window.start, width)}
                  </button>
                ) : (
                  bucket(window.start, width)
                )}
              </th>
              <td class="number">
                <Cell series={counted.whole} place={place} measure={measure} />
              </td>
              {counted.series.map((series) => (
                <td class="number" key={JSON.stringify(series.names) + series.isRest}>
                  <Cell series={series} place={place} measure={measure} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Cell({ series, place, measure }: { series: Series; place: number; measure: string }) {
  const { values, priced, gaps } = series;
  return (
    <Amount value={values[place] ?? 0n} measure={measure} isPriced={priced[place] ?? false} lacking={gaps[place]} />
  );
}

/** The same, folded: for who cannot see the chart above it. */
export function Folded(shown: Shown) {
  const [isOpen, setIsOpen] = useState(false);
  return (
    <details onToggle={(event) => setIsOpen(event.currentTarget.open)}>
      <summary>Numbers as a table</summary>
      {isOpen && <Times {...shown} />}
    </details>
  );
}
