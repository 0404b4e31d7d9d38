"""Made-up but lifelike traffic: a month in a company that runs everything through one AI platform.

The tables at the top are the company: its projects, what each asks of which model, when and how much. The
code below rolls the dice for them, hour by hour. The same arguments give the same events.

What this module refuses: to read a clock, to know Tallybook (it makes what any producer could send), and to
be taken for a measurement. Only the shapes are real: log-normal sizes, Zipf-like people, office hours,
weekends, growth, caches.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from operator import itemgetter
from random import Random
from typing import NamedTuple

HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rhythm(NamedTuple):
    """When work happens: a digit for each local hour, a weekend day against a weekday, UTC offsets."""

    hours: str
    weekend: float
    zones: tuple[int, ...] = (0,)

    def share(self, hour: datetime) -> float:
        """The share of a weekday's requests that falls into this UTC hour."""
        share = 0.0
        for zone in self.zones:
            local = hour + timedelta(hours=zone)
            share += int(self.hours[local.hour]) * (self.weekend if local.weekday() >= 5 else 1.0)
        return share / sum(map(int, self.hours)) / len(self.zones)


class Spread(NamedTuple):
    """A log-normal quantity from 1 to `most`; `digits` are the decimals it keeps (None: an integer)."""

    median: float
    sigma: float
    most: int = 128_000
    digits: int | None = None


class Share(NamedTuple):
    """A part of the field `of`: `low` to `high` of it with probability `chance`, else 0, in steps of `step`.

    Parts that exclude each other have `high`s that add up to at most 1: so they never exceed their whole.
    """

    of: str
    low: float
    high: float
    chance: float = 1.0
    step: int = 1


@dataclass(frozen=True)
class Workload:
    """A stream of events, `per_day` on the first weekday: fields chosen by weight, wholes, their parts."""

    kind: str
    id_prefix: str
    per_day: int
    rhythm: Rhythm
    choices: Mapping[str, Mapping[object, float]] = field(default_factory=dict)
    wholes: Mapping[str, Spread] = field(default_factory=dict)
    parts: Mapping[str, Share] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """A team: how many people (none: only services call) and API keys, its growth per day, what it does."""

    id: str
    people: int
    keys: int
    growth: float
    workloads: tuple[Workload, ...]


class VectorStore(NamedTuple):
    """A store of files: bytes when it opens, growth per day; `opens` and `closes` are days of the window."""

    id: str
    project: str
    size: int
    growth: float
    opens: int = 0
    closes: int = 10_000


#                    midnight     6     noon     18
OFFICE = Rhythm(     "000000" "148998" "689985" "322110", weekend=0.08, zones=(1, -5))  # fmt: skip
DEVELOPERS = Rhythm( "210000" "013578" "678998" "765443", weekend=0.30, zones=(1, -8))  # fmt: skip
CUSTOMERS = Rhythm(  "322112" "346788" "888877" "787654", weekend=0.65, zones=(0, -5))  # fmt: skip
NIGHT = Rhythm(      "499731" "000000" "000000" "000001", weekend=0.60)  # fmt: skip

STORES = (
    VectorStore("vs_product_catalogue", "proj_search", 9_400_000_000, growth=1.015),
    VectorStore("vs_help_center", "proj_voice_support", 1_300_000_000, growth=1.004),
    VectorStore("vs_company_wiki", "proj_assistant", 3_100_000_000, growth=1.009),
    VectorStore("vs_papers", "proj_research", 620_000_000, growth=1.060, opens=2),
    # Replaced, and deleted in the second week:
    VectorStore("vs_catalogue_2024", "proj_search", 5_800_000_000, growth=1.0, closes=12),
)

PROJECTS = (
    # Everybody's chat window: two continents, office hours, half of every prompt is yesterday's conversation.
    Project("proj_assistant", people=42, keys=3, growth=1.010, workloads=(
        Workload(
            "completions", "resp_", 1600, OFFICE,
            choices={
                "model": {"gpt-5-2025-08-07": 5, "gpt-5.4-mini-2026-03-17": 4, "gpt-4o-2024-08-06": 2},
                "service_tier": {"default": 19, "priority": 1},
            },
            wholes={"input_tokens": Spread(2400, 0.9), "output_tokens": Spread(320, 0.8, 16_384)},
            parts={"input_cached_tokens": Share("input_tokens", 0.3, 0.8, chance=0.7, step=128)},
        ),
        Workload(
            "moderations", "modr-", 340, OFFICE,
            choices={"model": {"omni-moderation-latest": 1}},
            wholes={"input_tokens": Spread(140, 0.9, 8_000)},
        ),
        Workload(
            "file_search_calls", "fs_", 160, OFFICE,
            choices={"vector_store_id": {"vs_company_wiki": 1}},
        ),
        Workload("code_interpreter_sessions", "cntr_", 45, OFFICE),
    )),
    # Writes software: huge prompts, nearly all of them read from the cache, some of them just written to it.
    Project("proj_coding_agent", people=24, keys=3, growth=1.022, workloads=(
        Workload(
            "completions", "resp_", 1150, DEVELOPERS,
            choices={
                "model": {"gpt-5.5-2026-04-23": 6, "gpt-5-2025-08-07": 3, "o4-mini-2025-04-16": 1},
                "service_tier": {"default": 8, "priority": 2},
                "api_source": {"agents_api": 4, "unlabeled": 1},
            },
            wholes={"input_tokens": Spread(38_000, 0.8, 260_000), "output_tokens": Spread(700, 1.0, 32_000)},
            parts={
                "input_cached_tokens": Share("input_tokens", 0.55, 0.90, chance=0.92, step=128),
                "input_cache_write_30m_tokens": Share("input_tokens", 0.01, 0.06),
                "input_cache_write_12h_tokens": Share("input_tokens", 0.01, 0.04, chance=0.3),
            },
        ),
        Workload(
            "web_search_calls", "ws_", 120, DEVELOPERS,
            choices={
                "model": {"gpt-5.5-2026-04-23": 1},
                "context_level": {"low": 6, "medium": 3, "high": 1},
                "api_source": {"agents_api": 1},
            },
            wholes={"num_requests": Spread(1.3, 0.5, 10)},
        ),
        Workload("code_interpreter_sessions", "cntr_", 60, DEVELOPERS),
    )),
    # Reads the day's documents while everyone sleeps, at batch prices; nobody's name is on it.
    Project("proj_nightly_documents", people=0, keys=2, growth=1.003, workloads=(
        Workload(
            "completions", "resp_", 700, NIGHT,
            choices={"model": {"gpt-4.1-mini-2025-04-14": 4, "gpt-4.1-2025-04-14": 1}, "batch": {True: 1}},
            wholes={"input_tokens": Spread(6_500, 0.7), "output_tokens": Spread(420, 0.5, 8_000)},
        ),
        Workload(
            "embeddings", "embd-", 210, NIGHT,
            choices={"model": {"text-embedding-3-large": 1}, "batch": {True: 1}},
            wholes={"input_tokens": Spread(5_200, 0.6)},
        ),
    )),
    # Answers the telephone, day and night: speech in, speech out, and recordings written down afterwards.
    Project("proj_voice_support", people=9, keys=2, growth=1.015, workloads=(
        Workload(
            "completions", "resp_", 500, CUSTOMERS,
            choices={"model": {"gpt-realtime-2025-08-28": 3, "gpt-realtime-mini-2025-10-06": 1}},
            wholes={"input_tokens": Spread(1_900, 0.7, 32_000), "output_tokens": Spread(380, 0.6, 4_096)},
            parts={
                "input_audio_tokens": Share("input_tokens", 0.45, 0.70),  # cached audio included
                "input_cached_tokens": Share("input_tokens", 0.05, 0.25, chance=0.8),
                "input_cached_audio_tokens": Share("input_cached_tokens", 0.2, 0.6),
                "output_audio_tokens": Share("output_tokens", 0.70, 0.85),
            },
        ),
        Workload(
            "audio_transcriptions", "trsc_", 230, CUSTOMERS,
            choices={"model": {"whisper-1": 2, "gpt-4o-transcribe": 1}},
            wholes={"seconds": Spread(140, 0.9, 1_500, digits=2)},
        ),
        Workload(
            "audio_speeches", "spch_", 260, CUSTOMERS,
            choices={"model": {"tts-1": 4, "tts-1-hd": 1}},
            wholes={"characters": Spread(310, 0.8, 4_096)},
        ),
        Workload(
            "file_search_calls", "fs_", 180, CUSTOMERS,
            choices={"vector_store_id": {"vs_help_center": 1}},
        ),
    )),
    # The shop's search box: an embedding per query, a short answer from a model the platform serves itself.
    Project("proj_search", people=5, keys=3, growth=1.014, workloads=(
        Workload(
            "embeddings", "embd-", 560, CUSTOMERS,
            choices={"model": {"text-embedding-3-small": 1}},
            wholes={"input_tokens": Spread(28, 0.9, 8_192)},
        ),
        Workload(
            "completions", "chatcmpl-", 560, CUSTOMERS,
            choices={"model": {"meta-llama/Llama-3.3-70B-Instruct": 3, "Qwen/Qwen3-32B": 1}},
            wholes={"input_tokens": Spread(1_500, 0.5, 32_000), "output_tokens": Spread(130, 0.5, 2_048)},
        ),
        Workload(
            "file_search_calls", "fs_", 180, CUSTOMERS,
            choices={"vector_store_id": {"vs_product_catalogue": 1}},
        ),
    )),
    # Product pictures: looks at photographs, makes and mends images, checks what people ask for.
    Project("proj_image_studio", people=11, keys=2, growth=1.012, workloads=(
        Workload(
            "images", "img_", 110, OFFICE,
            choices={
                "model": {"gpt-image-1": 1},
                "size": {"1024x1024": 5, "1536x1024": 3, "1024x1536": 2},
                "source": {"image.generation": 5, "image.edit": 4},
                "images": {1: 6, 2: 3, 4: 2},
            },
        ),
        Workload(
            "images", "img_", 40, OFFICE,
            choices={
                "model": {"dall-e-3": 1},
                "size": {"1024x1024": 6, "1024x1792": 1, "1792x1024": 2},
                "source": {"image.generation": 1},
                "images": {1: 1},
            },
        ),
        Workload(
            "completions", "resp_", 260, OFFICE,
            choices={"model": {"gpt-4o-2024-08-06": 2, "gpt-5-2025-08-07": 1}},
            wholes={"input_tokens": Spread(1_900, 0.5, 64_000), "output_tokens": Spread(180, 0.5, 4_096)},
            parts={"input_image_tokens": Share("input_tokens", 0.4, 0.8)},
        ),
        Workload(
            "moderations", "modr-", 150, OFFICE,
            choices={"model": {"omni-moderation-latest": 1}},
            wholes={"input_tokens": Spread(60, 0.7, 4_000)},
        ),
    )),
    # Few people, long contexts, and patience: most of it at the slow and cheap tier.
    Project("proj_research", people=8, keys=2, growth=1.018, workloads=(
        Workload(
            "completions", "resp_", 330, DEVELOPERS,
            choices={
                "model": {"o3-2025-04-16": 3, "o4-mini-2025-04-16": 3, "gpt-4.1-2025-04-14": 2},
                "service_tier": {"flex": 7, "default": 3},
            },
            wholes={"input_tokens": Spread(70_000, 0.7, 190_000), "output_tokens": Spread(3_200, 0.8)},
            parts={
                "input_cached_tokens": Share("input_tokens", 0.2, 0.7, chance=0.5, step=128),
                "input_cache_write_tokens": Share("input_tokens", 0.05, 0.25, chance=0.4),
            },
        ),
        Workload(
            "web_search_calls", "ws_", 150, DEVELOPERS,
            choices={"model": {"o3-2025-04-16": 1}, "context_level": {"medium": 2, "high": 5}},
            wholes={"num_requests": Spread(3.0, 0.6, 30)},
        ),
        Workload("code_interpreter_sessions", "cntr_", 35, DEVELOPERS),
    )),
    # Stands at the door: allows or refuses in a few tokens, and cannot wait.
    Project("proj_fraud_desk", people=0, keys=2, growth=1.008, workloads=(
        Workload(
            "decisions", "dec_", 300, CUSTOMERS,
            choices={
                "model": {"gpt-5-nano-2025-08-07": 4, "gpt-5-mini-2025-08-07": 1},
                "service_tier": {"priority": 1},
            },
            wholes={"input_tokens": Spread(900, 0.4, 16_000), "output_tokens": Spread(12, 0.4, 256)},
            parts={"input_cached_tokens": Share("input_tokens", 0.5, 0.7, chance=0.9, step=128)},
        ),
        Workload(
            "completions", "resp_", 200, CUSTOMERS,
            choices={"model": {"gpt-5-mini-2025-08-07": 1}},
            wholes={"input_tokens": Spread(1_700, 0.5, 32_000), "output_tokens": Spread(240, 0.5, 4_096)},
        ),
    )),
)  # fmt: skip

PEOPLE = 60
WOBBLE = 0.2  # log-normal sigma of an hour around its mean: real hours scatter more than dice do
REPORT_HOURS = 6  # vector stores report their level this often

# What the company talks about at lunch: each on the day at that fraction of the window, weekends put off.
# The platform is down for an hour, and one request in 25 gets through:
INCIDENT_AT, INCIDENT_HOUR, INCIDENT_PASSES = 0.55, 14, 0.04
# An agent goes round in circles all evening, and nobody looks:
RUNAWAY_AT, RUNAWAY_HOUR, RUNAWAY_HOURS = 0.75, 21, 5
RUNAWAY_PROJECT, RUNAWAY_PER_HOUR = "proj_coding_agent", 900


def traffic(start: datetime, end: datetime, seed: int = 1) -> Iterator[list[dict[str, object]]]:
    """Yield the events with `start` <= timestamp < `end` in time order, a batch for each hour that has any.

    Growth, incident, runaway and vector stores count from `start`: another start is another story, not
    another view of the same one. About 265,000 events in 30 days. Naive datetimes are a TypeError.
    """
    rng = Random(seed)  # noqa: S311 - the point is to be repeatable
    people = [f"user-{rng.getrandbits(96):024x}" for _ in range(PEOPLE)]
    teams = [(project, _callers(rng, project, people)) for project in PROJECTS]
    first = EPOCH + (start - EPOCH) // HOUR * HOUR
    incident = _weekday(start + (end - start) * INCIDENT_AT, INCIDENT_HOUR)
    runaway = _weekday(start + (end - start) * RUNAWAY_AT, RUNAWAY_HOUR)
    for age in range(-((first - end) // HOUR)):
        hour = first + age * HOUR
        span = range(_ms(max(hour, start)), _ms(min(hour + HOUR, end)))
        passes = INCIDENT_PASSES if hour == incident else 1.0
        batch = list(_levels(rng, span, age))
        for project, callers in teams:
            for workload in project.workloads:
                mean = workload.per_day * workload.rhythm.share(hour) * project.growth ** (age / 24) * passes
                batch += _events(rng, workload, callers, span, mean)
            if project.id == RUNAWAY_PROJECT and runaway <= hour < runaway + RUNAWAY_HOURS * HOUR:
                batch += _events(rng, project.workloads[0], callers[:1], span, RUNAWAY_PER_HOUR)
        if batch:
            yield sorted(batch, key=itemgetter("timestamp"))


def _callers(rng: Random, project: Project, people: Sequence[str]) -> list[dict[str, object]]:
    """Who calls for a project, the busiest first: each person with one key, or the bare keys."""
    keys: list[dict[str, object]] = [
        {"project_id": project.id, "api_key_id": f"key_{rng.getrandbits(64):016x}"} for _ in range(project.keys)
    ]
    users = rng.sample(people, project.people)
    return [keys[rank % len(keys)] | {"user_id": user} for rank, user in enumerate(users)] or keys


def _events(
    rng: Random, workload: Workload, callers: Sequence[dict[str, object]], span: range, hourly: float
) -> Iterator[dict[str, object]]:
    """The events of one workload in one hour, made column by column, which keeps the loops small and fast."""
    mean = hourly * len(span) / 3_600_000  # the window may cut the first hour and the last
    # The random fraction rounds up exactly as often as it should: rare events keep their mean.
    count = int(mean * rng.lognormvariate(0, WOBBLE) + rng.random())
    columns: dict[str, Sequence[object]] = {
        "kind": [workload.kind] * count,
        "id": [f"{workload.id_prefix}{rng.getrandbits(96):024x}" for _ in range(count)],
        "timestamp": [_moment(rng, span) for _ in range(count)],
    }
    for name, weights in workload.choices.items():
        columns[name] = rng.choices([*weights], [*weights.values()], k=count)
    numbers: dict[str, list[float]] = {}
    for name, spread in workload.wholes.items():
        numbers[name] = [_whole(rng, spread) for _ in range(count)]
    for name, share in workload.parts.items():
        numbers[name] = [_part(rng, share, whole) for whole in numbers[share.of]]
    columns |= numbers
    zipf = [1 / rank for rank in range(1, len(callers) + 1)]
    for caller, *row in zip(rng.choices(callers, zipf, k=count), *columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True)) | caller


def _levels(rng: Random, span: range, age: int) -> Iterator[dict[str, object]]:
    """The level reports due `age` hours into the window; a store that closes reports 0 once."""
    if not span or age % REPORT_HOURS:
        return
    day = age / 24
    for store in STORES:
        if store.opens <= day < store.closes + REPORT_HOURS / 24:
            level = int(store.size * store.growth ** (day - store.opens))
            yield {
                "kind": "vector_stores",
                "id": f"vsr_{rng.getrandbits(96):024x}",
                "timestamp": _moment(rng, span),
                "project_id": store.project,
                "vector_store_id": store.id,
                "usage_bytes": level if day < store.closes else 0,
            }


def _whole(rng: Random, spread: Spread) -> float:
    """A whole, never below 1: a request that read or wrote nothing is not worth an event."""
    drawn = spread.median * rng.lognormvariate(0, spread.sigma)
    return round(min(max(drawn, 1), spread.most), spread.digits)


def _part(rng: Random, share: Share, whole: float) -> int:
    """A part of a whole, rounded down so that all parts together still fit."""
    if rng.random() >= share.chance:
        return 0
    part = int(whole * (share.low + (share.high - share.low) * rng.random()))
    return part - part % share.step


def _moment(rng: Random, span: range) -> float:
    """Unix seconds, to the millisecond, inside a span of milliseconds."""
    return span[int(rng.random() * len(span))] / 1000


def _weekday(moment: datetime, hour: int) -> datetime:
    """That UTC hour on the day of `moment`, or on the Monday after when it is a weekend."""
    day = moment.astimezone(UTC).date()
    if day.weekday() >= 5:
        day += timedelta(days=7 - day.weekday())
    return datetime.combine(day, time(hour), UTC)


def _ms(moment: datetime) -> int:
    """The first whole Unix millisecond at or after a moment: exact, so half-open windows stay half-open."""
    return -((EPOCH - moment) // timedelta(milliseconds=1))
