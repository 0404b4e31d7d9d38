// Windows and axes: UTC, half-open, and nothing named twice.

import assert from "node:assert/strict";
import { test } from "node:test";
import { chosenWidth, named, RANGES, SECONDS, tick, widths } from "../src/time.ts";

const DAY = 86_400;
const MIDNIGHT = 1_795_305_600;
const every = (count, seconds, start = MIDNIGHT) =>
  Array.from({ length: count }, (_, place) => start + place * seconds);

test("ranges begin at the edges of their bars and have as many as they say", () => {
  const at = MIDNIGHT + 15 * 3600 + 61;
  assert.equal(RANGES.today.start(at), MIDNIGHT);
  assert.equal(RANGES["30d"].start(at), MIDNIGHT - 29 * DAY);
  assert.equal(RANGES["24h"].start(at), MIDNIGHT - 8 * 3600);
  assert.equal(RANGES["1h"].start(at), MIDNIGHT + 14 * 3600 + 60);
});

test("widths fit the window", () => {
  const of = (span) => [chosenWidth({ start: 0, end: span }), widths({ start: 0, end: span })];
  assert.deepEqual(of(3600), ["1m", ["1m", "1h", "1d"]]);
  assert.deepEqual(of(2 * DAY), ["1h", ["1h", "1d"]]);
  assert.deepEqual(of(365 * DAY), ["1d", ["1d"]]);
});

test("an axis names whole hours and days, and no more than it has room for", () => {
  for (const [count, seconds, start] of [
    [60, 60],
    [24, 3600],
    [160, 3600],
    [160, 3600, MIDNIGHT + 1800],
    [31, DAY],
    [365, DAY],
    [1440, 60],
    [3, 60],
  ]) {
    for (const most of [2, 4, 12]) {
      const instants = every(count, seconds, start);
      const places = named(instants, most);
      assert.ok(places.length >= 1 && places.length <= most, `${count} of ${seconds} s, room for ${most}`);
      const steps = new Set(places.slice(1).map((place, before) => place - places[before]));
      assert.ok(steps.size <= 2, "evenly, but for a first that is cut");
    }
  }
  const week = every(160, 3600);
  assert.deepEqual(
    named(week, 12).map((place) => tick(week[place], "1h")),
    ["Nov 22", "Nov 23", "Nov 24", "Nov 25", "Nov 26", "Nov 27", "Nov 28"],
  );
});

test("a width is as long as its name", () => assert.deepEqual(Object.values(SECONDS), [60, 3600, DAY]));
