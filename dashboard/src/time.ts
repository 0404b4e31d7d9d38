// Windows of time, all of them UTC and half-open, in Unix seconds.

/** How wide bars may be; the API also takes `all`, one bucket for a whole window. */
export type Width = "1m" | "1h" | "1d";

export const SECONDS: Readonly<Record<Width, number>> = { "1m": 60, "1h": 3600, "1d": 86_400 };
const DAY = SECONDS["1d"];

export interface Window {
  start: number;
  end: number;
}

/** How far the server's clock is ahead of the viewer's, in milliseconds: what is "now" is for the server to say. */
let ahead = 0;

/** A header has whole seconds, and a busy server writes it a little late. */
const DOUBTFUL_MS = 5000;

/** Learns the server's time from an answer's header. */
export function learn(date: string | null): void {
  const told = Date.parse(date ?? "") - Date.now();
  if (Math.abs(told - ahead) > DOUBTFUL_MS) ahead = Math.abs(told) > DOUBTFUL_MS ? told : 0;
}

export function now(): number {
  return Math.floor((Date.now() + ahead) / 1000);
}

/** The window of a bar, or of a stretch of them, to look into: a bar that is under way is looked into as a whole. */
export function into(first: Window, last: Window, width: Width): Window {
  return { start: first.start, end: Math.max(last.end, floor(last.start, SECONDS[width]) + SECONDS[width]) };
}

export function floor(instant: number, seconds: number): number {
  return Math.floor(instant / seconds) * seconds;
}

export function midnight(instant = now()): number {
  return floor(instant, DAY);
}

/** Ranges to choose from, each with its beginning as of an instant. */
export const RANGES: Readonly<Record<string, { label: string; start: (at: number) => number }>> = {
  "1h": { label: "Last hour", start: (at) => floor(at, 60) - 3600 },
  "24h": { label: "Last 24 hours", start: (at) => floor(at, 3600) - 23 * 3600 },
  today: { label: "Today", start: midnight },
  "7d": { label: "Last 7 days", start: (at) => midnight(at) - 6 * DAY },
  "30d": { label: "Last 30 days", start: (at) => midnight(at) - 29 * DAY },
  "90d": { label: "Last 90 days", start: (at) => midnight(at) - 89 * DAY },
  "1y": { label: "Last 365 days", start: (at) => midnight(at) - 364 * DAY },
};

/** 2100, the last instant the API takes. */
export const LAST = 4_102_444_800;
const BUCKETS_MAX = 1500;

/** Widths that divide a window into as many bars as can be told apart, the finest first. */
export function widths({ start, end }: Window): Width[] {
  const fitting = (Object.keys(SECONDS) as Width[]).filter((width) => (end - start) / SECONDS[width] <= BUCKETS_MAX);
  return fitting.length ? fitting : ["1d"];
}

export function chosenWidth({ start, end }: Window): Width {
  const span = end - start;
  if (span <= 3 * 3600) return "1m";
  return span <= 4 * DAY ? "1h" : "1d";
}

const zone = { timeZone: "UTC" } as const;
const DATE = new Intl.DateTimeFormat(undefined, { ...zone, day: "numeric", month: "short" });
const FULL_DATE = new Intl.DateTimeFormat(undefined, { ...zone, dateStyle: "medium" });
const TIME = new Intl.DateTimeFormat(undefined, { ...zone, hour: "2-digit", minute: "2-digit" });
const FULL_TIME = new Intl.DateTimeFormat(undefined, { ...zone, dateStyle: "medium", timeStyle: "short" });

const STEPS = [1, 5, 15, 30, 60, 120, 180, 360, 720, 1440].map((minutes) => minutes * 60);

/** Which of so many instants an axis has room to name: at whole hours or days, and every so many days beyond that. */
export function named(instants: readonly number[], most: number): number[] {
  const places = instants.map((_, place) => place);
  for (const step of STEPS) {
    const found = places.filter((place) => (instants[place] ?? 0) % step === 0);
    if (found.length && found.length <= most) return found;
  }
  const days = places.filter((place) => place === 0 || (instants[place] ?? 0) % DAY === 0);
  const every = Math.ceil(days.length / most);
  return days.filter((_, number) => number % every === 0);
}

/** An instant as an axis has room for. */
export function tick(instant: number, width: Width): string {
  return (width === "1d" || instant % DAY === 0 ? DATE : TIME).format(instant * 1000);
}

/** A bucket in full. */
export function bucket(instant: number, width: Width): string {
  return (width === "1d" ? FULL_DATE : FULL_TIME).format(instant * 1000);
}

export function moment(instant: number): string {
  return `${FULL_TIME.format(instant * 1000)} UTC`;
}

export function iso(instant: number): string {
  return new Date(instant * 1000).toISOString().replace(".000Z", "Z");
}
