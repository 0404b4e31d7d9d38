// The table on screen as a file for spreadsheets, with all digits.

import { exact, isMoney } from "./amount";
import type { Question } from "./question";
import { label, type Series, type Tally } from "./series";
import { iso } from "./time";
import { type Quantities, said } from "./unpriced";

/** What a spreadsheet would take for a formula; it gets a single quote before it, as in the server's own exports. */
const FORMULA = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;

/** Of money there is a column more, the last: what has no price. Where nothing has one, there is no amount. */
export function csv({ measure, groupBy, table }: Question, { buckets, series }: Tally): string {
  const figures = (value: bigint, isPriced: boolean, lacking: Quantities | undefined) =>
    isMoney(measure)
      ? [isPriced || !lacking?.size ? exact(value, measure) : "", cell(said(lacking ?? new Map(), true))]
      : [exact(value, measure)];
  const headings = isMoney(measure) ? [measure, "unpriced"] : [measure];
  const names = (one: Series) =>
    one.isRest ? groupBy.map((_, place) => (place ? "" : label(one))) : one.names.map(cell);
  const rows =
    table === "totals"
      ? [
          [...groupBy, ...headings],
          ...series.map((one) => [...names(one), ...figures(one.total, one.isPriced, one.lacking)]),
        ]
      : [
          ["start_time", "end_time", ...groupBy, ...headings],
          ...buckets.flatMap(({ start, end }, at) =>
            series.map((one) => [
              iso(start),
              iso(end),
              ...names(one),
              ...figures(one.values[at] ?? 0n, one.priced[at] ?? false, one.gaps[at]),
            ]),
          ),
        ];
  return rows.map((row) => `${row.join(",")}\r\n`).join("");
}

/** A text as it is written into a row. */
export function cell(text: string | null): string {
  if (text === null) return "";
  return quoted(FORMULA.test(text) ? `'${text}` : text);
}

/** The same for files that no spreadsheet reads. */
export function quoted(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Hands the browser a file. */
export function save(name: string, content: string): void {
  const url = URL.createObjectURL(new Blob([content], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url));
}
