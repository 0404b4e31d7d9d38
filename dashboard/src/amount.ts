// Exact numbers: counts as they are, money as whole numbers of 10^-18 dollars; and how both are shown.

const DIGITS = 18;
const UNIT = 10n ** BigInt(DIGITS);

/** How the numbers of a measure are to be read. */
export type Measure = string;

export function isMoney(measure: Measure): boolean {
  return measure === "amount";
}

/** Reads a decimal, as JSON writes it, to 10^-18. */
export function read(decimal: string): bigint {
  const [mantissa = "0", exponent = "0"] = decimal.toLowerCase().split("e");
  const [whole = "0", fraction = ""] = mantissa.split(".");
  const shift = DIGITS - fraction.length + Number(exponent);
  const digits = BigInt(whole + fraction);
  return shift >= 0 ? digits * 10n ** BigInt(shift) : digits / 10n ** BigInt(-shift);
}

/** Writes a number with all its digits. */
export function exact(value: bigint, measure: Measure): string {
  if (!isMoney(measure)) return value.toString();
  const positive = value < 0n ? -value : value;
  const fraction = (positive % UNIT).toString().padStart(DIGITS, "0").replace(/0+$/, "");
  return `${value < 0n ? "-" : ""}${positive / UNIT}${fraction && `.${fraction}`}`;
}

/** The number as a chart draws it. */
export function approximate(value: bigint, measure: Measure): number {
  return isMoney(measure) ? Number(value) / Number(UNIT) : Number(value);
}

const COUNT = new Intl.NumberFormat();
const SHORT = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const PERCENT = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
/** Beyond this there was next to nothing before. */
const CHANGE_MAX = 9.99;
const CHANGE = new Intl.NumberFormat(undefined, {
  style: "percent",
  maximumFractionDigits: 0,
  signDisplay: "exceptZero",
});

function dollars(digits: number, notation: "standard" | "compact" = "standard"): Intl.NumberFormat {
  const minimum = notation === "compact" ? 0 : Math.min(2, digits);
  const options = { minimumFractionDigits: minimum, maximumFractionDigits: digits, notation };
  return new Intl.NumberFormat(undefined, { style: "currency", currency: "USD", ...options });
}

const WHOLE = dollars(0);
const CENTS = dollars(2);
const FINE = dollars(4);
const FINEST = dollars(8);
const DOLLARS_SHORT = dollars(1, "compact");

/** The number in words of the viewer's locale. */
export function show(value: bigint, measure: Measure): string {
  return isMoney(measure) ? money(approximate(value, measure)) : COUNT.format(value);
}

function money(value: number): string {
  const size = Math.abs(value);
  return (size === 0 || size >= 1 ? CENTS : size >= 0.01 ? FINE : FINEST).format(value);
}

/** The number as an axis has it: its steps are round. */
export function axis(value: number, measure: Measure): string {
  return isMoney(measure) && Number.isInteger(value) && Math.abs(value) < 100_000
    ? WHOLE.format(value)
    : brief(value, measure);
}

/** The number in as few characters as a card has room for. */
export function brief(value: number, measure: Measure): string {
  if (!isMoney(measure)) return Math.abs(value) < 10_000 ? COUNT.format(value) : SHORT.format(value);
  const size = Math.abs(value);
  return size < 1_000 ? money(value) : (size < 100_000 ? WHOLE : DOLLARS_SHORT).format(value);
}

export function share(part: bigint, whole: bigint): string {
  return PERCENT.format(ratio(part, whole));
}

export function ratio(part: bigint, whole: bigint): number {
  return whole === 0n ? 0 : Number(part) / Number(whole);
}

/** The change from one number to another, or null where there is nothing to compare with. */
export function change(now: bigint, before: bigint): string | null {
  if (before === 0n) return null;
  const moved = ratio(now - before, before);
  return moved < CHANGE_MAX ? CHANGE.format(moved) : `>${CHANGE.format(CHANGE_MAX)}`;
}
