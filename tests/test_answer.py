"""Questions as SQL: exactly this text, every value bound."""

from collections.abc import Iterator
from dataclasses import replace

import duckdb
import pytest

from tallybook.kinds import KINDS
from tallybook.query import Query
from tallybook.store.answer import Snapshot, usage_statement
from tallybook.store.schema import migrate

DAY = 1_735_689_600  # 2025-01-01
KIND = KINDS["embeddings"]
QUESTION = Query(
    organization_id="org-a",
    start_s=DAY,
    end_s=DAY + 2 * 86_400,
    width_s=86_400,
    now_s=DAY + 10 * 86_400,
    group_by=("model",),
    filters={"project_id": ("proj_a", "proj_b")},
    rows_max=100,
)


@pytest.fixture(params=[0, 1], ids=["all is rolled up", "not all is rolled up"])
def snapshot(request: pytest.FixtureRequest) -> Iterator[Snapshot]:
    """A store whose rollups end where the questions do, or one lot earlier."""
    with duckdb.connect() as connection:
        migrate(connection)
        connection.execute("UPDATE rolled_up SET latest = make_timestamp(?)", [(DAY + 10 * 86_400) * 1_000_000])
        yield Snapshot(connection, request.param)


def test_whole_days_are_summed_from_days(snapshot: Snapshot) -> None:
    statement = usage_statement(KIND, QUESTION, snapshot)
    rest = (
        "UNION ALL\n"
        'SELECT "timestamp" AS instant, series_id, input_tokens, num_model_requests FROM facts '
        'WHERE "timestamp" >= make_timestamp($from_1::BIGINT * 1000000) '
        'AND "timestamp" < make_timestamp($to_1::BIGINT * 1000000) AND lot > $folded_lot\n'
    )
    assert statement.sql == (
        "SELECT greatest(epoch_ms(date_trunc('day', instant)) // 1000, $window_s) AS start_s, series.model, "
        "try_cast(sum(input_tokens) AS BIGINT) AS input_tokens, "
        "try_cast(sum(num_model_requests) AS BIGINT) AS num_model_requests\n"
        "FROM (\n"
        "SELECT start AS instant, series_id, input_tokens, num_model_requests FROM project_days "
        "WHERE start >= make_timestamp($from_0::BIGINT * 1000000) AND start < make_timestamp($to_0::BIGINT * 1000000)\n"
        + (rest if snapshot.has_rest else "")
        + ") AS cells JOIN series USING (series_id)\n"
        "WHERE series.organization_id = $organization_id AND series.kind = $kind "
        "AND series.project_id IN (SELECT unnest($only_project_id))\n"
        "GROUP BY date_trunc('day', instant), 2\n"
        "ORDER BY 1 NULLS LAST, 2 NULLS LAST\n"
        "LIMIT 101"
    )
    assert statement.values == {
        "from_0": DAY,
        "to_0": DAY + 2 * 86_400,
        **({"from_1": DAY, "to_1": DAY + 2 * 86_400, "folded_lot": 0} if snapshot.has_rest else {}),
        "window_s": DAY,
        "organization_id": "org-a",
        "kind": "embeddings",
        "only_project_id": ["proj_a", "proj_b"],
    }


def tables(sql: str) -> list[str]:
    return [table for table in ("facts", "project_hours", "project_days") for _ in range(sql.count(f"FROM {table} "))]


def test_ragged_ends_are_summed_from_hours_and_events(snapshot: Snapshot) -> None:
    statement = usage_statement(KIND, replace(QUESTION, start_s=DAY - 3_660, end_s=DAY + 90_061), snapshot)
    rest = ["facts"] if snapshot.has_rest else []
    assert tables(statement.sql) == ["facts", "facts", *rest, "project_hours", "project_hours", "project_days"]


def test_a_bucket_after_which_nothing_follows_is_read_whole(snapshot: Snapshot) -> None:
    """A question up to now needs no ragged end where nothing is stored of later."""
    end_s = DAY + 10 * 86_400 + 61
    statement = usage_statement(KIND, replace(QUESTION, end_s=end_s), snapshot)
    assert tables(statement.sql) == [*(["facts"] if snapshot.has_rest else []), "project_days"]
    assert statement.values["to_0"] == DAY + 11 * 86_400
    if snapshot.has_rest:  # of what is not rolled up only what was asked for
        assert statement.values["to_1"] == end_s


def test_no_value_of_a_client_is_in_the_text(snapshot: Snapshot) -> None:
    evil = "'; DROP TABLE events; --"
    question = replace(QUESTION, organization_id=evil, filters={"project_id": (evil,)})
    for kind in (KINDS["embeddings"], KINDS["vector_stores"]):
        assert evil not in usage_statement(kind, replace(question, group_by=()), snapshot).sql
