// The table on screen as a file for spreadsheets, with all digits.

import { exact } from "./amount";
import type { Question } from "./question";
import { label, type Tally } from "./series";
import { iso } from "./time";

/** What a spreadsheet would take for a formula; it gets a single quote before it, as in the server's own exports. */
const FORMULA = /^'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;

export function csv({ measure, groupBy }: Question, { buckets, series }: Tally): string {
  const rows = [["start_time", "end_time", ...groupBy, measure]];
  buckets.forEach(({ start, end }, at) => {
    for (const one of series) {
      const names = one.isRest ? groupBy.map((_, place) => (place ? "" : label(one))) : one.names;
      const value = one.values[at] ?? 0n;
      if (value !== 0n) rows.push([iso(start), iso(end), ...names.map(cell), exact(value, measure)]);
    }
  });
  return rows.map((row) => `${row.join(",")}\r\n`).join("");
}

/** A text as it is written into a row. */
export function cell(text: string | null): string {
  if (text === null) return "";
  const harmless = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
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
