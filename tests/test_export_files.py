"""Files of exports: written while their rows come, every value as it is."""

import csv
import io
import itertools
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallybook.export import files
from tallybook.export.charge import Charge
from tallybook.export.dashboard import SCHEMA as DASHBOARD
from tallybook.export.dashboard import dashboard_batches
from tallybook.export.files import stream
from tallybook.export.focus import focus_batches, schema
from tallybook.export.formulas import defuse, restore
from tallybook.export.usage import usage_batches, usage_schema
from tallybook.kinds import DIMENSIONS, MEASURES
from tests.test_focus import CHARGE, FREE, JANUARY

DECIMAL = pa.decimal128(38, 18)
FORMATS: tuple[files.Format, ...] = ("csv", "parquet")
NUMBERS = pa.record_batch({"number": pa.array([], pa.int64()), "text": pa.array([], pa.string())}).schema


def numbers(asked: list[int], *, batches: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches that note when they are asked for."""
    for number in range(batches):
        asked.append(number)
        yield pa.record_batch([[number] * rows, [f"row {row} of {number}" for row in range(rows)]], schema=NUMBERS)


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))


def as_csv(array: Any) -> list[str]:
    """The cells of a column, as they are written."""
    batch = pa.record_batch({"column": array})
    content = b"".join(stream([batch], batch.schema, "csv")).decode()
    return content.removeprefix("column\n").split("\n")[:-1]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_first_rows_come_before_the_last_are_asked_for(format_: files.Format) -> None:
    asked: list[int] = []
    group = files.GROUP_ROWS_MAX // 8
    pieces = stream(numbers(asked, batches=100, rows=group), NUMBERS, format_)
    received = b""
    for piece in pieces:
        received += piece
        if len(received) > 10_000:
            break
    assert len(asked) <= 9
    received += b"".join(pieces)
    assert asked == list(range(100))
    if format_ == "csv":
        assert len(read_csv(received)) == 1 + 100 * group
    else:
        file = pq.ParquetFile(io.BytesIO(received))
        assert file.metadata.num_rows == 100 * group
        assert file.metadata.num_row_groups == 13  # 12 full ones and the rest


@pytest.mark.parametrize("format_", FORMATS)
def test_no_more_than_a_row_group_is_held(format_: files.Format) -> None:
    before = pa.total_allocated_bytes()
    most = 0
    for _ in stream(numbers([], batches=200, rows=files.ROWS_MAX), NUMBERS, format_):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 2 * files.GROUP_BYTES_MAX


def test_a_row_group_ends_early_where_rows_are_long() -> None:
    long = pa.record_batch([list(range(1_000)), ["x" * 10_000] * 1_000], schema=NUMBERS)  # 10 MB
    asked: list[pa.RecordBatch] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(20):
            asked.append(long)
            yield long

    next(stream(batches(), NUMBERS, "parquet"))
    assert len(asked) == 4


@pytest.mark.parametrize("format_", FORMATS)
def test_a_batch_of_any_length_is_cut(format_: files.Format) -> None:
    rows = 3 * files.GROUP_ROWS_MAX
    sizes = [len(piece) for piece in stream(numbers([], batches=1, rows=rows), NUMBERS, format_)]
    assert len(sizes) >= 3
    assert max(sizes) < sum(sizes) / 2


def test_a_file_without_rows_has_its_columns() -> None:
    assert b"".join(stream([], NUMBERS, "csv")) == b"number,text\n"
    assert pq.read_schema(io.BytesIO(b"".join(stream([], NUMBERS, "parquet")))).equals(NUMBERS)


def test_a_parquet_file_that_broke_off_cannot_be_taken_for_a_whole_one() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from numbers([], batches=20, rows=files.ROWS_MAX)
        raise ConnectionError("gone")

    received = bytearray()
    with pytest.raises(ConnectionError):
        received.extend(itertools.chain.from_iterable(stream(broken(), NUMBERS, "parquet")))
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(bytes(received)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(cells=st.lists(st.none() | st.text(), min_size=1, max_size=10))
def test_every_text_survives_csv(cells: list[str | None]) -> None:
    batch = pa.record_batch({"a": pa.array(cells, pa.string()), "b": pa.array(cells, pa.string())})
    content = b"".join(stream([batch], batch.schema, "csv"))
    rows = [[restore(cell) for cell in row] for row in read_csv(content)]
    assert rows == [["a", "b"], *([cell or "", cell or ""] for cell in cells)]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''+1", "\uff1d1", "=a\nb"])
def test_what_a_spreadsheet_takes_for_a_formula_is_told_to_be_text(text: str) -> None:
    content = b"".join(stream([pa.record_batch({"a": pa.array([text])})], pa.schema({"a": pa.string()}), "csv"))
    ((cell,),) = read_csv(content)[1:]
    assert cell == defuse(text) == f"'{text}"
    assert restore(cell) == text


@pytest.mark.parametrize("text", ["a=1", " =1", "1-1", "'", "'quoted'", "", "\N{MINUS SIGN}1"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert defuse(text) == restore(text) == text


@settings(max_examples=500, deadline=None, derandomize=True)
@given(text=st.text(st.sampled_from("'=+-@\t\r\na\"\uff20"), max_size=6))
def test_a_defused_text_begins_like_no_formula_and_is_never_mistaken_for_another(text: str) -> None:
    assert defuse(text)[:1] not in tuple("=+-@\t\r\n\uff20")
    assert restore(defuse(text)) == text


def test_numbers_are_no_formulas() -> None:
    assert as_csv(pa.array([-5, 7])) == ["-5", "7"]
    assert as_csv(pa.array([Decimal("-1.5")], DECIMAL)) == ["-1.5"]


def test_cells_are_quoted_only_where_they_must_be_and_empty_is_not_null() -> None:
    cells = ["plain", "a,b", 'say "hi"', "", None, "naïve"]
    assert as_csv(pa.array(cells)) == ["plain", '"a,b"', '"say ""hi"""', '""', "", "naïve"]


def test_csv_begins_with_its_first_column() -> None:
    assert next(stream([], schema("1.4"), "csv")).startswith(b"BilledCost,")


@settings(max_examples=500, deadline=None, derandomize=True)
@given(value=st.decimals(-(10**20) + 1, 10**20 - 1, places=18))
def test_decimals_are_plain_and_exact(value: Decimal) -> None:
    (text,) = as_csv(pa.array([value], DECIMAL))
    assert Decimal(text) == value
    assert "E" not in text
    assert text == "0" or (not text.endswith((".", ".0")) and text != "-0")
    assert "." not in text or not text.endswith("0")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0"),
        ("1", "1"),
        ("-1", "-1"),
        ("100", "100"),
        ("0.5", "0.5"),
        ("-0.5", "-0.5"),
        ("1E-18", "0.000000000000000001"),
        ("-1E-18", "-0.000000000000000001"),
        ("0.999999999999999999", "0.999999999999999999"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
    ],
)
def test_a_decimal_as_it_is_written(value: str, text: str) -> None:
    assert as_csv(pa.array([Decimal(value), None], DECIMAL)) == [text, ""]
    assert as_csv(pa.array([Decimal(value)], pa.decimal128(38, 18)).slice(0, 1)) == [text]


def test_other_types_in_csv() -> None:
    assert as_csv(pa.array([True, False, None])) == ["true", "false", ""]
    assert as_csv(pa.array([JANUARY * 10**6, None], pa.timestamp("us", tz="UTC"))) == ["2026-01-01T00:00:00Z", ""]
    assert as_csv(pa.array([2**63 - 1, -1])) == ["9223372036854775807", "-1"]


def dashboard_rows(charges: list[Charge]) -> list[dict[str, str]]:
    content = b"".join(stream(dashboard_batches(charges), DASHBOARD, "csv")).decode()
    return list(csv.DictReader(io.StringIO(content)))


def test_the_dashboards_csv_has_the_dashboards_columns() -> None:
    assert next(stream([], DASHBOARD, "csv")) == (
        b"start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id,"
        b"organization_id,organization_name\n"
    )
    (row,) = dashboard_rows([CHARGE])
    assert list(row.values()) == [
        "1769817600",
        "1769904000",
        "2026-01-31T00:00:00+00:00",
        "2026-02-01T00:00:00+00:00",
        "0.15432125",
        "usd",
        "gpt-4o-2024-08-06, cached input",
        "proj_1",
        "org-1",
        "org-1",
    ]


def test_the_dashboards_csv_adds_up_what_it_does_not_tell_apart() -> None:
    later = CHARGE._replace(start_s=CHARGE.end_s, end_s=CHARGE.end_s + 86_400)
    tiny = Decimal("0.000000000000000001")
    charges = [
        CHARGE._replace(amount=Decimal(10**12)),
        CHARGE._replace(user_id="other", service_tier=None, amount=tiny),
        CHARGE._replace(project_id=None),
        later,
        FREE._replace(start_s=later.start_s, end_s=later.end_s),
    ]
    rows = dashboard_rows(charges)
    assert [(row["project_id"], row["amount_value"]) for row in rows] == [
        ("proj_1", "1000000000000.000000000000000001"),
        ("", "0.15432125"),
        ("proj_1", "0.15432125"),
        ("", "-0.015"),
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_charges_are_asked_for_while_they_are_written(format_: files.Format) -> None:
    asked: list[int] = []

    def charges() -> Iterator[Charge]:
        for second in range(100_000):
            asked.append(second)
            yield CHARGE._replace(start_s=JANUARY + second, end_s=JANUARY + second + 1)

    for batches, columns in (
        (focus_batches(charges(), "1.4"), schema("1.4")),
        (dashboard_batches(charges()), DASHBOARD),
    ):
        asked.clear()
        pieces = stream(batches, columns, format_)
        received = next(pieces)
        if format_ == "csv":
            received = next(pieces)  # after the header
        assert len(received) > 10_000
        assert 0 < len(asked) <= files.GROUP_ROWS_MAX + 4_096


def stored(**columns: list[Any]) -> pa.RecordBatch:
    """Rows as the store gives them, null where nothing is said, columns in an order of its own."""
    rows = len(next(iter(columns.values())))
    types: dict[str, pa.DataType] = {"kind": pa.string(), "id": pa.string(), "timestamp": pa.timestamp("us")}
    types |= {name: pa.bool_() if name == "batch" else pa.string() for name in DIMENSIONS}
    types |= dict.fromkeys(MEASURES, pa.int64()) | {"cost": DECIMAL}
    arrays = {name: pa.array(columns.get(name, [None] * rows), type_) for name, type_ in reversed(types.items())}
    return pa.record_batch(arrays)


def test_usage_is_exported_as_fields_of_events() -> None:
    assert usage_schema().names == ["kind", "id", "timestamp", *DIMENSIONS, *MEASURES, "cost"]
    batch = stored(
        kind=["completions", "vector_stores"],
        id=["a", None],
        timestamp=[JANUARY * 10**6 + 250_000, JANUARY * 10**6],
        batch=[False, None],
        input_tokens=[5, None],
        usage_bytes=[None, 0],
        cost=[Decimal("0.000000000000000001"), None],
    )
    (rows,) = [found.to_pylist() for found in usage_batches([batch])]
    known = [{name: value for name, value in row.items() if value is not None} for row in rows]
    assert known == [
        {
            "kind": "completions",
            "id": "a",
            "timestamp": "2026-01-01T00:00:00.250Z",
            "batch": False,
            "input_tokens": 5,
            "cost": Decimal("0.000000000000000001"),
        },
        {"kind": "vector_stores", "timestamp": "2026-01-01T00:00:00.000Z", "usage_bytes": 0},
    ]


def test_an_instant_finer_than_the_export_is_not_rounded_in_silence() -> None:
    batch = stored(kind=["images"], timestamp=[JANUARY * 10**6 + 1])
    with pytest.raises(pa.ArrowInvalid):
        list(usage_batches([batch]))
