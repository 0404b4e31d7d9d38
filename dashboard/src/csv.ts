// The table on screen as a file for spreadsheets, with all digits.

import { exact } from "./amount";
import type { Question } from "./question";
import { label, type Series, type Tally } from "./series";
import { iso } from "./time";

/** What a spreadsheet would take for a formula; it gets a single quote before it, as in the server's own exports. */
const FORMULA = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;

export function csv({ measure, groupBy, table }: Question, { buckets, series }: Tally): string {
  const names = (one: Series) =>
    one.isRest ? groupBy.map((_, place) => (place ? "" : label(one))) : one.names.map(cell);
  const rows =
    table === "totals"
      ? [[...groupBy, measure], ...series.map((one) => [...names(one), exact(one.total, measure)])]
      : [
          ["start_time", "end_time", ...groupBy, measure],
          ...buckets.flatMap(({ start, end }, at) =>
            series.map((one) => [iso(start), iso(end), ...names(one), exact(one.values[at] ?? 0n, measure)]),
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
