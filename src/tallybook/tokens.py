"""Token parts: checks what an event gives and derives the rest.

How the wholes are made up (``usage-kinds`` of the reference)::

    input  = uncached + cached + cache_write          always
    cache_write = cache_write_30m + cache_write_12h   always
    cached   >= cached_text + cached_audio + cached_image
    uncached >= text + image + (audio - cached_audio)     audio includes cached audio
    output   >= output_text + output_audio + output_image

The last three are not equations: some sources count reasoning or rejected tokens into no modality. A part above its
whole, however, is the usual sign of double counting and is refused.
"""

from collections.abc import Mapping
from typing import Final, NoReturn

from tallybook.kinds import TOKEN_MEASURES

_NAMES: Final = dict(zip(TOKEN_MEASURES, range(len(TOKEN_MEASURES)), strict=True))
_INPUT_PARTS: Final = slice(_NAMES["input_cached_tokens"], _NAMES["output_tokens"])
_OUTPUT_PARTS: Final = slice(_NAMES["output_text_tokens"], None)
_NO_INPUT_PARTS: Final = (None,) * 10
_NO_OUTPUT_PARTS: Final = (None,) * 3


DERIVED: Final[Mapping[str, Mapping[str, int]]] = {
    "input_uncached_tokens": {"input_tokens": 1, "input_cached_tokens": -1, "input_cache_write_tokens": -1},
    "input_text_tokens": {
        "input_tokens": 1,
        "input_cached_tokens": -1,
        "input_cache_write_tokens": -1,
        "input_image_tokens": -1,
        "input_audio_tokens": -1,
        "input_cached_audio_tokens": 1,
    },
    "input_cached_text_tokens": {
        "input_cached_tokens": 1,
        "input_cached_audio_tokens": -1,
        "input_cached_image_tokens": -1,
    },
    "output_text_tokens": {"output_tokens": 1, "output_audio_tokens": -1, "output_image_tokens": -1},
}
"""Parts that nearly always are what others leave over: which, and their signs. None of them follows from another of
them. Where an event says otherwise, its own word counts."""


class Contradiction(ValueError):
    """Counts that cannot all be true; `field` and `value` name the one to look at first."""

    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.value = value


def complete(given: tuple[int | None, ...]) -> tuple[int, ...]:
    """Return all token parts of one event.

    Args:
        given: one count for each of `TOKEN_MEASURES`, None where the event is silent.

    Returns:
        The same with every count filled in.

    Raises:
        Contradiction: a part above its whole, a part without its whole, or no tokens at all.
    """
    if given[2:12] == _NO_INPUT_PARTS and given[13:] == _NO_OUTPUT_PARTS:
        # By far the most events: text alone, and no word of its parts but what came from the cache.
        total, cached, output = given[0], given[1] or 0, given[12] or 0
        if total is not None and cached <= total:
            text = total - cached
            return total, cached, 0, 0, 0, text, text, 0, 0, cached, 0, 0, output, output, 0, 0
    if given[0] is None and given[_NAMES["output_tokens"]] is None:
        _refuse("input_tokens", None, "an event needs input_tokens or output_tokens; give at least one")
    return (*_complete_input(given), *_complete_output(given))


def _complete_input(given: tuple[int | None, ...]) -> tuple[int, ...]:
    total, cached, write, write_30m, write_12h, uncached, *modalities = given[: _NAMES["output_tokens"]]
    if total is None:
        _refuse_orphans("input_tokens", given, _INPUT_PARTS)
        return (0,) * 12
    write, write_30m, write_12h = _complete_cache_write(write, write_30m, write_12h)
    if cached is None:
        # From the equation where it can be solved; the parts alone may fall short of it.
        cached_parts = sum(count for count in modalities[3:] if count is not None)
        cached = cached_parts if uncached is None else max(0, total - uncached - write)
    if cached + write > total:
        name, count = ("input_cached_tokens", cached) if cached else ("input_cache_write_tokens", write)
        _refuse(
            name,
            count,
            f"input_cached_tokens {cached} + input_cache_write_tokens {write} exceed input_tokens {total}, which "
            "includes both; add them to input_tokens if the source reports them apart",
        )
    rest = total - cached - write
    if uncached is not None and uncached > rest:
        _refuse(
            "input_uncached_tokens",
            uncached,
            f"input_uncached_tokens {uncached} + input_cached_tokens {cached} + input_cache_write_tokens {write} "
            f"make {uncached + cached + write}, above input_tokens {total}; a part cannot be above its whole",
        )
    uncached = rest  # what is neither read from a cache nor written to one, whatever a breakdown says of it
    return (total, cached, write, write_30m, write_12h, uncached, *_complete_modalities(uncached, cached, *modalities))


def _complete_modalities(
    uncached: int,
    cached: int,
    text: int | None,
    image: int | None,
    audio: int | None,
    cached_text: int | None,
    cached_audio: int | None,
    cached_image: int | None,
) -> tuple[int, int, int, int, int, int]:
    image = image or 0
    cached_image = cached_image or 0
    if cached_audio is None:
        # A source that tells audio but not how much of it was cached: the least that makes the parts fit.
        cached_audio = min(audio or 0, max(0, (audio or 0) + image + (text or 0) - uncached))
    if audio is None:
        audio = cached_audio
    if cached_audio > audio:
        _exceeds({"input_cached_audio_tokens": cached_audio}, "input_audio_tokens", audio)
    if cached_text is None:
        cached_text = max(0, cached - cached_audio - cached_image)
    cached_parts = cached_text + cached_audio + cached_image
    if cached_parts > cached:
        _exceeds(
            {
                "input_cached_text_tokens": cached_text,
                "input_cached_audio_tokens": cached_audio,
                "input_cached_image_tokens": cached_image,
            },
            "input_cached_tokens",
            cached,
        )
    if text is None:
        text = max(0, uncached - image - (audio - cached_audio))
    uncached_parts = text + image + audio - cached_audio
    if uncached_parts > uncached:
        _exceeds(
            {
                "input_text_tokens": text,
                "input_image_tokens": image,
                "input_audio_tokens": audio - cached_audio,
            },
            "input_uncached_tokens",
            uncached,
            " (audio here without its cached part)",
        )
    return text, image, audio, cached_text, cached_audio, cached_image


def _complete_cache_write(write: int | None, write_30m: int | None, write_12h: int | None) -> tuple[int, int, int]:
    if write is None:
        write = (write_30m or 0) + (write_12h or 0)
    write_30m, write_12h = write_30m or 0, write_12h or 0
    if write_30m + write_12h > write:
        _refuse(
            "input_cache_write_tokens",
            write,
            f"input_cache_write_30m_tokens {write_30m} + input_cache_write_12h_tokens {write_12h} make "
            f"{write_30m + write_12h}, above input_cache_write_tokens {write}; a part cannot be above its whole",
        )
    # A split may fall short: it is of the first of several turns. The rest has the shorter and cheaper retention.
    return write, write - write_12h, write_12h


def _complete_output(given: tuple[int | None, ...]) -> tuple[int, int, int, int]:
    total, text, audio, image = given[_NAMES["output_tokens"] :]
    if total is None:
        _refuse_orphans("output_tokens", given, _OUTPUT_PARTS)
        return 0, 0, 0, 0
    audio = audio or 0
    image = image or 0
    if text is None:
        text = max(0, total - audio - image)
    if text + audio + image > total:
        _exceeds(
            {"output_text_tokens": text, "output_audio_tokens": audio, "output_image_tokens": image},
            "output_tokens",
            total,
        )
    return total, text, audio, image


def _refuse_orphans(whole: str, given: tuple[int | None, ...], parts: slice) -> None:
    for name, count in zip(TOKEN_MEASURES[parts], given[parts], strict=True):
        if count is not None:
            _refuse(name, count, f"{name} is a part of {whole}, which is missing; give {whole} as well")


def _exceeds(parts: dict[str, int], whole: str, limit: int, note: str = "") -> NoReturn:
    listed = " + ".join(f"{name} {count}" for name, count in parts.items() if count)
    largest = max(parts, key=lambda name: parts[name])
    message = f"{listed} exceeds {whole} {limit}{note}; a part cannot be above its whole"
    _refuse(largest, parts[largest], message)


def _refuse(field: str, value: object, message: str) -> NoReturn:
    raise Contradiction(field, value, message)
