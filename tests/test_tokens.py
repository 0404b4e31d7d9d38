"""Token parts: what follows is derived, what contradicts is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.kinds import TOKEN_MEASURES
from tallybook.tokens import Contradiction, complete


def completed(**given_parts: int) -> dict[str, int]:
    parts = complete(tuple(given_parts.get(name) for name in TOKEN_MEASURES))
    return dict(zip(TOKEN_MEASURES, parts, strict=True))


DERIVED = [
    # the reference's own example
    ({"input_tokens": 1000, "input_cached_tokens": 800}, {"input_uncached_tokens": 200, "input_text_tokens": 200}),
    ({"input_tokens": 1000, "input_cached_tokens": 800}, {"input_cached_text_tokens": 800, "output_tokens": 0}),
    ({"input_tokens": 1000, "input_uncached_tokens": 200}, {"input_cached_tokens": 800}),
    ({"input_tokens": 10, "input_cache_write_12h_tokens": 4}, {"input_cache_write_tokens": 4}),
    ({"input_tokens": 10, "input_cache_write_tokens": 4}, {"input_cache_write_30m_tokens": 4}),
    (
        {"input_tokens": 10, "input_cache_write_tokens": 4, "input_cache_write_12h_tokens": 1},
        {"input_cache_write_30m_tokens": 3, "input_uncached_tokens": 6},
    ),
    ({"input_tokens": 10, "input_cached_audio_tokens": 4}, {"input_cached_tokens": 4, "input_audio_tokens": 4}),
    ({"input_tokens": 100, "input_audio_tokens": 30, "input_image_tokens": 20}, {"input_text_tokens": 50}),
    # 500 audio of 1,000 with 800 cached: at least 300 of the audio were cached
    (
        {"input_tokens": 1000, "input_cached_tokens": 800, "input_audio_tokens": 500},
        {"input_cached_audio_tokens": 300, "input_cached_text_tokens": 500, "input_text_tokens": 0},
    ),
    ({"output_tokens": 50}, {"input_tokens": 0, "output_text_tokens": 50}),
    ({"output_tokens": 50, "output_audio_tokens": 20, "output_image_tokens": 5}, {"output_text_tokens": 25}),
    # the split of a cache write may fall short of it: the rest has the shorter retention
    ({"input_tokens": 10, "input_cache_write_tokens": 4, "input_cache_write_12h_tokens": 0}, {}),
    # reasoning belongs to no modality: parts may fall short
    ({"output_tokens": 50, "output_text_tokens": 10}, {"output_text_tokens": 10, "output_tokens": 50}),
]


@pytest.mark.parametrize(("given_parts", "derived"), DERIVED)
def test_what_follows_is_derived(given_parts: dict[str, int], derived: dict[str, int]) -> None:
    assert completed(**given_parts).items() >= (given_parts | derived).items()


@pytest.mark.parametrize(
    ("total", "short", "long", "split"),
    [
        (4, None, None, (4, 0)),
        (4, 1, None, (4, 0)),
        (4, None, 1, (3, 1)),
        (4, 1, 0, (4, 0)),
        (4, 0, 1, (3, 1)),
        (4, 3, 1, (3, 1)),
        (None, 3, 1, (3, 1)),
        (None, 3, None, (3, 0)),
        (0, 0, 0, (0, 0)),
    ],
)
def test_what_a_split_of_a_cache_write_leaves_over_has_the_shorter_retention(
    total: int | None, short: int | None, long: int | None, split: tuple[int, int]
) -> None:
    told = {
        "input_cache_write_tokens": total,
        "input_cache_write_30m_tokens": short,
        "input_cache_write_12h_tokens": long,
    }
    parts = completed(input_tokens=9, **{name: count for name, count in told.items() if count is not None})
    assert (parts["input_cache_write_30m_tokens"], parts["input_cache_write_12h_tokens"]) == split
    assert parts["input_cache_write_tokens"] == sum(split)


def test_uncached_tokens_are_what_the_other_two_leave_over() -> None:
    parts = completed(input_tokens=10, input_uncached_tokens=5, input_cached_tokens=4)
    assert parts["input_uncached_tokens"] == 6


REFUSED = [
    ({}, "input_tokens"),
    ({"input_cached_tokens": 1, "output_tokens": 1}, "input_cached_tokens"),
    ({"input_tokens": 1, "output_text_tokens": 0}, "output_text_tokens"),
    ({"input_tokens": 10, "input_cached_tokens": 11}, "input_cached_tokens"),
    ({"input_tokens": 10, "input_cache_write_tokens": 11}, "input_cache_write_tokens"),
    ({"input_tokens": 10, "input_cached_tokens": 6, "input_cache_write_tokens": 5}, "input_cached_tokens"),
    ({"input_tokens": 10, "input_uncached_tokens": 7, "input_cached_tokens": 4}, "input_uncached_tokens"),
    ({"input_tokens": 10, "input_uncached_tokens": 11}, "input_uncached_tokens"),
    (
        {
            "input_tokens": 9,
            "input_cache_write_tokens": 3,
            "input_cache_write_30m_tokens": 2,
            "input_cache_write_12h_tokens": 2,
        },
        "input_cache_write_tokens",
    ),
    ({"input_tokens": 10, "input_text_tokens": 11}, "input_text_tokens"),
    ({"input_tokens": 10, "input_image_tokens": 11}, "input_cached_text_tokens"),
    ({"input_tokens": 10, "input_audio_tokens": 2, "input_cached_audio_tokens": 3}, "input_cached_audio_tokens"),
    ({"output_tokens": 10, "output_audio_tokens": 6, "output_image_tokens": 5}, "output_text_tokens"),
]


@pytest.mark.parametrize(("given_parts", "field"), REFUSED)
def test_a_contradiction_is_refused_and_named(given_parts: dict[str, int], field: str) -> None:
    with pytest.raises(Contradiction) as refused:
        completed(**given_parts)
    assert refused.value.field in (field, *given_parts)


counts = st.integers(0, 20)


@given(st.dictionaries(st.sampled_from(TOKEN_MEASURES), counts))
def test_the_parts_of_whatever_is_accepted_add_up(given_parts: dict[str, int]) -> None:
    try:
        parts = completed(**given_parts)
    except Contradiction:
        return
    remainders = {"input_cache_write_30m_tokens", "input_uncached_tokens"}
    assert {name: parts[name] for name in given_parts if name not in remainders}.items() <= given_parts.items()
    assert all(parts[name] >= given_parts.get(name, 0) for name in remainders)
    assert min(parts.values()) >= 0
    uncached, cached, write = (
        parts["input_uncached_tokens"],
        parts["input_cached_tokens"],
        parts["input_cache_write_tokens"],
    )
    assert uncached + cached + write == parts["input_tokens"]
    assert parts["input_cache_write_30m_tokens"] + parts["input_cache_write_12h_tokens"] == write
    cached_audio = parts["input_cached_audio_tokens"]
    assert parts["input_cached_text_tokens"] + cached_audio + parts["input_cached_image_tokens"] <= cached
    assert cached_audio <= parts["input_audio_tokens"]
    uncached_audio = parts["input_audio_tokens"] - cached_audio
    assert parts["input_text_tokens"] + parts["input_image_tokens"] + uncached_audio <= uncached
    modalities = ("output_text_tokens", "output_audio_tokens", "output_image_tokens")
    assert sum(parts[name] for name in modalities) <= parts["output_tokens"]


@given(counts, counts, counts, counts, counts)
def test_what_is_derived_is_accepted_again_unchanged(
    total: int, cached: int, write: int, audio: int, output: int
) -> None:
    try:
        parts = completed(
            input_tokens=total,
            input_cached_tokens=cached,
            input_cache_write_tokens=write,
            input_audio_tokens=audio,
            output_tokens=output,
        )
    except Contradiction:
        return
    assert completed(**parts) == parts
