"""Questions as SQL: exactly this text, every value bound."""

from dataclasses import replace

from tallybook.kinds import KINDS
from tallybook.query import Query
from tallybook.store.answer import usage_statement

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


def test_whole_days_are_summed_from_days() -> None:
    statement = usage_statement(KIND, QUESTION)
    assert statement.sql == (
        "SELECT greatest(epoch_ms(date_trunc('day', instant)) // 1000, $window_s) AS start_s, series.model, "
        "try_cast(sum(input_tokens) AS BIGINT) AS input_tokens, "
        "try_cast(sum(num_model_requests) AS BIGINT) AS num_model_requests\n"
        "FROM (\n"
        "SELECT start AS instant, series_id, input_tokens, num_model_requests FROM usage_days "
        "WHERE start >= make_timestamp($from_0::BIGINT * 1000000) AND start < make_timestamp($to_0::BIGINT * 1000000)\n"
        ") AS cells JOIN series USING (series_id)\n"
        "WHERE series.organization_id = $organization_id AND series.kind = $kind "
        "AND series.project_id IN (SELECT unnest($only_project_id))\n"
        "GROUP BY date_trunc('day', instant), 2\n"
        "ORDER BY 1 NULLS LAST, 2 NULLS LAST\n"
        "LIMIT 101"
    )
    assert statement.values == {
        "from_0": DAY,
        "to_0": DAY + 2 * 86_400,
        "window_s": DAY,
        "organization_id": "org-a",
        "kind": "embeddings",
        "only_project_id": ["proj_a", "proj_b"],
    }


def test_ragged_ends_are_summed_from_hours_and_events() -> None:
    statement = usage_statement(KIND, replace(QUESTION, start_s=DAY - 3_660, end_s=DAY + 90_061))
    assert [table for table in ("events", "usage_hours", "usage_days") if f"FROM {table} " in statement.sql] == [
        "events",
        "usage_hours",
        "usage_days",
    ]
    assert statement.sql.count("UNION ALL") == 4


def test_no_value_of_a_client_is_in_the_text() -> None:
    evil = "'; DROP TABLE events; --"
    question = replace(QUESTION, organization_id=evil, filters={"project_id": (evil,)})
    for kind in (KINDS["embeddings"], KINDS["vector_stores"]):
        assert evil not in usage_statement(kind, replace(question, group_by=())).sql
