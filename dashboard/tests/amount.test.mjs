// Amounts are exact: what JSON says is what is shown to machines and written into files.

import assert from "node:assert/strict";
import { test } from "node:test";
import { axis, brief, change, exact, read, share, show } from "../src/amount.ts";

test("a decimal is read and written with all its digits", () => {
  for (const text of ["0", "1", "-1", "0.000000000000000001", "-12345678901234567890.123456789012345678", "0.5"]) {
    assert.equal(exact(read(text), "amount"), text);
  }
});

test("decimals are read however JSON writes them", () => {
  for (const [text, expected] of [
    ["1.50", "1.5"],
    ["1e-7", "0.0000001"],
    ["2.5E+3", "2500"],
    ["-1.25e1", "-12.5"],
    ["0.0", "0"],
  ]) {
    assert.equal(exact(read(text), "amount"), expected);
  }
});

test("sums of random decimals are those of whole numbers", () => {
  let seed = 1;
  const dice = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed;
  };
  let sum = 0n;
  let units = 0n;
  for (let turn = 0; turn < 2000; turn++) {
    const value = BigInt(dice()) * BigInt(dice()) - BigInt(dice()) * 2n ** 30n;
    units += value;
    sum += read(exact(value, "amount"));
  }
  assert.equal(sum, units);
});

test("counts are whole numbers of any size", () => {
  assert.equal(exact(2n ** 70n, "input_tokens"), "1180591620717411303424");
  assert.equal(show(1234567n, "input_tokens"), "1,234,567");
});

test("money is shown as finely as it needs", () => {
  const shown = (text) => show(read(text), "amount");
  assert.deepEqual(["0", "1234.5", "0.25", "0.0000125", "-3"].map(shown), [
    "$0.00",
    "$1,234.50",
    "$0.25",
    "$0.0000125",
    "-$3.00",
  ]);
  assert.deepEqual(
    [12.345, 1234.5, 250_000].map((value) => brief(value, "amount")),
    ["$12.35", "$1,235", "$250K"],
  );
  assert.deepEqual(
    [0, 800, 0.25].map((value) => axis(value, "amount")),
    ["$0", "$800", "$0.25"],
  );
});

test("a change is told where there is something to compare with", () => {
  assert.equal(change(150n, 100n), "+50%");
  assert.equal(change(0n, 100n), "-100%");
  assert.equal(change(100n, 100n), "0%");
  assert.equal(change(5n, 0n), null);
  assert.equal(change(10n ** 9n, 1n), ">+999%");
  assert.equal(share(1n, 3n), "33.3%");
  assert.equal(share(1n, 0n), "0%");
});
