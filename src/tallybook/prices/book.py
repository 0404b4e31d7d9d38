"""The price book: what holds for a model at an instant, from three sources.

1. the operator's file
2. a file of our own, for what the library lacks
3. the library: list prices of the providers

The first source that has prices for a kind of usage and a model is the only one for them: prices of one model are never
put together from two. Where a price is missing nothing is made up. The operator's file is asked for the name an event
has; then all are asked for the model it stands for (see `tallybook.spelling.offer`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal, localcontext
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

from tallybook.errors import CommandFailed
from tallybook.kinds import KINDS, UsageKind
from tallybook.money import SCALE
from tallybook.parts import PARTS, PARTS_OF, Part
from tallybook.prices import library as lists
from tallybook.prices.file import SUBSCRIPTION, Entry, read, standard_geo, standard_tier
from tallybook.prices.library import Classes, Found, Library
from tallybook.rate import UNITS, Price, Rate, Rule
from tallybook.spelling import Offer, offer
from tallybook.timegrid import DAY_S

PRICE_DIMENSIONS: Final = ("model", "service_tier", "batch", "size", "quality", "context_level", "inference_geo")
"""What a price may depend on, besides the instant and the number of input tokens."""
_DAY_MS: Final = DAY_S * 1000
_LIKE_MAX: Final = 4
"""How many models may be priced like each other in a row."""
_REMEMBERED_MAX: Final = 50_000
_FACTOR_DIGITS: Final = 60

Dimensions = Mapping[str, str | bool | None]


class Source(NamedTuple):
    """Where prices come from."""

    name: str
    version: str
    entries: int


class Listed(NamedTuple):
    """A price as it is listed: for what, how much, since when, and who says so."""

    provider: str | None
    model: str | None
    kind: str
    counted: str
    service_tier: str | None
    batch: bool | None
    above_input_tokens: int | None
    size: str | None
    quality: str | None
    context_level: str | None
    inference_geo: str | None
    hours: str | None
    unit: str
    price: Decimal
    free: Decimal | None
    since_ms: int | None
    until_ms: int | None
    source: str
    checked: str | None


class _File:
    """The entries of a file, by usage kind: those that say what something costs, and factors."""

    def __init__(self, name: str, entries: Iterable[Entry]) -> None:
        self.name = name
        self.entries = tuple(entries)
        self.factors: dict[str, list[Entry]] = {kind: [] for kind in KINDS}
        self._named: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._general: dict[str, list[Entry]] = {kind: [] for kind in KINDS}
        for entry in self.entries:
            if entry.price is None and not entry.like:
                self.factors[entry.kind].append(entry)
            elif entry.model and not entry.model.endswith("*"):
                self._named[entry.kind, entry.model].append(entry)
            else:
                self._general[entry.kind].append(entry)

    def priced(self, kind: str, model: str | None) -> Iterator[Entry]:
        """Yield the entries that say what something of a kind costs and may be of a model."""
        yield from self._named.get((kind, model.lower()), ()) if model else ()
        yield from self._general[kind]

    @property
    def lines(self) -> int:
        """How many lines have entries."""
        return len({entry.line for entry in self.entries})


class PriceBook:
    """A `tallybook.rate.Book`.

    Args:
        operator: entries of the operator's file.
        built_in: entries of our own file; none if list prices are not wanted.
        library: list prices, None if they are not wanted.
        digest: of what these were read from.
    """

    def __init__(
        self, operator: Iterable[Entry], built_in: Iterable[Entry], library: Library | None, digest: str
    ) -> None:
        self.book_id = f"book_{digest}"
        self._operator = _File("operator", operator)
        self._built_in = _File("built-in", built_in)
        self._library = library
        instants = {
            instant
            for entry in (*self._operator.entries, *self._built_in.entries)
            for instant in (entry.since_ms, entry.until_ms)
            if instant is not None and instant % _DAY_MS
        }
        self._instants = sorted(instants)
        entries = (*self._operator.entries, *self._built_in.entries)
        self._hourly = [entry for entry in entries if entry.hours]
        self._likes = [entry for entry in entries if entry.like]
        self._remembered: dict[tuple[object, ...], tuple[Rule, ...]] = {}

    @property
    def sources(self) -> list[Source]:
        """Return the sources, the first to be asked first."""
        found = []
        if self._operator.entries:
            found.append(Source("operator", "", self._operator.lines))
        if self._built_in.entries:
            newest = max(entry.checked for entry in self._built_in.entries)
            found.append(Source("built-in", f"checked {newest}", self._built_in.lines))
        if self._library:
            found.append(Source("library", self._library.data.version, self._library.data.models))
        return found

    def rules(self, kind: UsageKind, dimensions: tuple[str | bool | None, ...], day_s: int, /) -> tuple[Rule, ...]:
        """See `Book.rules`."""
        named = dict(zip(kind.dimensions, dimensions, strict=True))
        wanted = {name: named.get(name) for name in PRICE_DIMENSIONS}
        key = (kind.name, *wanted.values(), day_s)
        if (known := self._remembered.get(key)) is None:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            known = self._remembered[key] = tuple(self._rules(kind.name, wanted, day_s * 1000))
        return known

    def schedule(self, kind: UsageKind, /) -> tuple[tuple[int, Rate | None], ...]:
        """See `Book.schedule`."""
        entries = (*self._operator.entries, *self._built_in.entries)
        dated = {
            instant
            for entry in entries
            if kind.name == entry.kind
            for instant in (entry.since_ms, entry.until_ms)
            if instant is not None and instant > 0
        }
        anything = dict.fromkeys(PRICE_DIMENSIONS)
        rates: list[tuple[int, Rate | None]] = []
        for instant_ms in (0, *sorted(dated)):
            classes = self.classes(kind.name, anything, instant_ms)
            rate = self._rate(kind.name, classes[0][1]) if classes else None
            if not rates or rates[-1][1] != rate:
                rates.append((instant_ms, rate))
        return tuple(rates)

    def _rules(self, kind: str, dimensions: Dimensions, day_ms: int) -> Iterator[Rule]:
        before: list[tuple[int, Rate | None]] = []
        for instant_ms in self._changes(dimensions["model"], day_ms):
            classes = [
                (above, self._rate(kind, prices, above)) for above, prices in self.classes(kind, dimensions, instant_ms)
            ]
            if not classes or classes[0][0] >= 0:
                classes.insert(0, (-1, None))  # below the first threshold nothing has a price
            if classes != before:
                yield from (Rule(instant_ms, above, rate) for above, rate in classes)
            before = classes

    def _changes(self, model: str | bool | None, day_ms: int) -> list[int]:
        """Return when on a day prices may change, its start first."""
        within = {instant for instant in self._instants if day_ms < instant < day_ms + _DAY_MS}
        names: list[str | None] = [*self._names(model)] if isinstance(model, str) else [None]
        for name in names:
            if name and self._library and (found := self._library.find(offer(name))):
                within |= {day_ms + time_ms for time_ms in lists.times_of_day_ms(found[1])}
        for hours in {entry.hours for entry in self._hourly if any(entry.likeness(name) for name in names)}:
            within |= hours.changes_ms(day_ms) if hours else set()
        return sorted(within | {day_ms})

    def _names(self, model: str) -> Iterator[str]:
        """Yield a model, what it is called by its provider, and those it is, or was, priced like."""
        offered = offer(model)
        names = [model] if not offered or not offered.is_own else list(dict.fromkeys((model, offered.model)))
        for _ in range(_LIKE_MAX):
            yield from names
            names = [
                entry.like for entry in self._likes if entry.like and any(entry.likeness(name) > 1 for name in names)
            ]

    def _rate(self, kind: str, prices: Mapping[str, Price], above: int = -1) -> Rate | None:
        found = []
        for part in PARTS_OF[kind]:
            name = next((name for name in (part.name, *part.fallbacks) if name in prices), None)
            if name and not (part.is_optional and name != part.name):
                found.append(replace(prices[name], part=part.name, above=above))
        return Rate(kind, tuple(found), self.book_id) if found else None

    def classes(
        self, kind: str, dimensions: Dimensions, instant_ms: int, likes: int = 0, *, is_list: bool = False
    ) -> Classes:
        """Return prices by part for events of a kind and dimensions at an instant, by their input tokens.

        Args:
            kind: name of the usage kind.
            dimensions: values of `PRICE_DIMENSIONS`.
            instant_ms: Unix milliseconds.
            likes: how many models were priced like another on the way here.
            is_list: list prices before discounts and mark-ups; those are for the name the event has.

        Returns:
            Empty if nothing has a price.
        """
        model = dimensions["model"]
        assert model is None or isinstance(model, str)
        if dimensions.get("service_tier") == SUBSCRIPTION:
            return self._subscribed(kind, dimensions, instant_ms)
        named, general = self._written(self._operator, kind, dimensions, instant_ms, likes)
        offered = offer(model) if model else None
        as_sold = _as_sold(dimensions, offered)
        if not named and as_sold != dimensions:
            named, _ = self._written(self._operator, kind, as_sold, instant_ms, likes)
        if found := named or general:
            return found
        named, general = self._written(self._built_in, kind, as_sold, instant_ms, likes)
        if offered and offered.provider:  # a prefix and a model that do not belong together prove nothing
            named = [each for each in named if all(price.provider == offered.provider for price in each[1].values())]
        found = named or _with_price(kind, self._listed(kind, as_sold, offered, instant_ms)) or general
        if is_list:
            return found
        return [(above, self._discounted(kind, prices, as_sold, instant_ms)) for above, prices in found]

    def _subscribed(self, kind: str, dimensions: Dimensions, instant_ms: int) -> Classes:
        """Return the prices of what a subscription covers: nothing, unless the operator's file prices that tier.

        It may have prices of its own for it, or a factor: what the subscription saves, for a rating that is only tried.
        """
        model = dimensions["model"]
        assert model is None or isinstance(model, str)
        entries = [
            entry
            for entry in self._operator.priced(kind, model)
            if entry.conditions.get("service_tier") == SUBSCRIPTION
            and entry.is_in_force(instant_ms)
            and entry.holds(dimensions)
            and entry.likeness(model)
        ]
        if entries:
            best = max(entry.likeness(model) for entry in entries)
            closest = [entry for entry in entries if entry.likeness(model) == best]
            return self._of(self._operator, kind, closest, dimensions, instant_ms, 0)
        nothing = {part.name: _nothing(part) for part in PARTS_OF[kind] if not part.is_optional}
        if not any(entry.conditions.get("service_tier") == SUBSCRIPTION for entry in self._operator.factors[kind]):
            return [(-1, nothing)]
        standard = self.classes(kind, {**dimensions, "service_tier": None}, instant_ms)
        found = self._by_factor(self._operator, kind, "service_tier", standard, dimensions, instant_ms)
        return found or [(-1, nothing)]

    def _written(
        self, file: _File, kind: str, dimensions: Dimensions, instant_ms: int, likes: int
    ) -> tuple[Classes, Classes]:
        """Return the prices of a file for a model it names, and those for any model."""
        model = dimensions["model"]
        assert model is None or isinstance(model, str)
        fitting = [
            (likeness, entry)
            for entry in file.priced(kind, model)
            if entry.is_in_force(instant_ms) and entry.holds(dimensions) and (likeness := entry.likeness(model))
        ]
        best = max((likeness for likeness, _ in fitting), default=0)
        named = [entry for likeness, entry in fitting if likeness == best > 1]
        general = [entry for likeness, entry in fitting if likeness == 1]
        by_name, by_any = (
            self._of(file, kind, found, dimensions, instant_ms, likes) if found else [] for found in (named, general)
        )
        return by_name, by_any

    def _of(
        self, file: _File, kind: str, entries: list[Entry], dimensions: Dimensions, instant_ms: int, likes: int
    ) -> Classes:
        best = max(entries, key=_precedence)
        if best.like:
            if likes >= _LIKE_MAX:
                return []
            like = {**dimensions, "model": best.like}
            found = self.classes(kind, like, instant_ms, likes + 1, is_list=file is self._built_in)
            factor = best.factor or Decimal(1)
            return [(above, {part: _times(price, factor) for part, price in prices.items()}) for above, prices in found]
        entries = [entry for entry in entries if not entry.like]
        thresholds = sorted({entry.above for entry in entries})
        classes = []
        for threshold in thresholds:
            chosen: dict[str, Entry] = {}
            for entry in sorted((entry for entry in entries if entry.above <= threshold), key=_precedence):
                chosen[entry.counted] = entry
            prices = {
                part: entry.as_price()
                if file is self._operator
                else self._tiered(kind, entry.as_price(), entry, dimensions, instant_ms)
                for part, entry in chosen.items()
            }
            classes.append((threshold, {part: price for part, price in prices.items() if price}))
        return classes

    def _tiered(self, kind: str, price: Price, entry: Entry, dimensions: Dimensions, instant_ms: int) -> Price | None:
        """Return a price of our own file for a tier, batch or place the line does not speak of, None if it is unknown.

        What is not counted in tokens costs the same in every one, and what is free is free.
        """
        aspects = (*_aspects(dimensions), *_place(dimensions))
        for aspect in (aspect for aspect in aspects if aspect not in entry.conditions):
            factors = (
                self._factor(file, kind, aspect, price, dimensions, instant_ms)
                for file in (self._operator, self._built_in)
            )
            factor = next((factor for factor in factors if factor is not None), None)
            if factor is None and price.value and PARTS[price.part].measured == "token":
                return None
            price = price if factor is None else _times(price, factor)
        return price

    def _listed(self, kind: str, dimensions: Dimensions, offered: Offer | None, instant_ms: int) -> Classes:
        """Return the library's prices; for a tier or batch it has none for, the standard ones by a known factor."""
        if not self._library or not (found := self._library.find(offered)):
            return []
        provider, info = found
        standard = lists.prices(provider, info, instant_ms) or []
        # What is not counted in tokens costs the same in every tier.
        if not any(part.measured == "token" for part in PARTS_OF[kind]):
            return standard
        classes = self._in_tier(kind, found, standard, dimensions, instant_ms)
        return self._placed(kind, classes, dimensions, instant_ms) if _place(dimensions) else classes

    def _in_tier(
        self,
        kind: str,
        found: Found,
        standard: Classes,
        dimensions: Dimensions,
        instant_ms: int,
    ) -> Classes:
        provider, info = found
        aspects = _aspects(dimensions)
        if not aspects:
            return standard
        ((aspect, value),) = aspects.items()
        tier = None if aspect == "batch" else str(value)
        listed = lists.prices(provider, info, instant_ms, tier, batch=aspect == "batch")
        own = self._by_factor(self._operator, kind, aspect, standard, dimensions, instant_ms)
        if own is None and listed is not None:
            return listed
        return own or self._by_factor(self._built_in, kind, aspect, standard, dimensions, instant_ms) or []

    def _placed(self, kind: str, classes: Classes, dimensions: Dimensions, instant_ms: int) -> Classes:
        """Return prices of what had to run in one place: of tokens only those that a file says a factor for."""
        placed = []
        for above, prices in classes:
            changed = {part: price for part, price in prices.items() if PARTS[part].measured != "token"}
            for part in prices.keys() - changed.keys():
                factors = (
                    self._factor(file, kind, "inference_geo", prices[part], dimensions, instant_ms)
                    for file in (self._operator, self._built_in)
                )
                if (factor := next((factor for factor in factors if factor is not None), None)) is not None:
                    changed[part] = _times(prices[part], factor)
            placed.append((above, changed))
        return placed

    def _by_factor(
        self, file: _File, kind: str, aspect: str, standard: Classes, dimensions: Dimensions, instant_ms: int
    ) -> Classes | None:
        """Return standard prices by what a file says a tier or batch differs, None if it says nothing."""
        found = False
        classes = []
        for above, prices in standard:
            changed = dict(prices)
            for part, price in prices.items():
                factor = self._factor(file, kind, aspect, price, dimensions, instant_ms)
                if factor is not None:
                    found, changed[part] = True, _times(price, factor)
            classes.append((above, changed))
        return classes if found else None

    @staticmethod
    def _factor(
        file: _File, kind: str, aspect: str | None, price: Price, dimensions: Dimensions, instant_ms: int
    ) -> Decimal | None:
        """Return the factor a file has for a price, in a tier or batch or, with no aspect, whatever these are."""
        model = dimensions["model"]
        assert model is None or isinstance(model, str)
        fitting = [
            entry
            for entry in file.factors[kind]
            if (aspect in entry.conditions if aspect else not entry.conditions.keys() & _ASPECTS)
            and entry.counted in ("", price.part)
            and entry.provider in ("", price.provider)
            and entry.is_in_force(instant_ms)
            and entry.holds(dimensions)
            and entry.likeness(model)
        ]
        best = max(fitting, key=lambda entry: (entry.likeness(model), entry.counted, _since(entry)), default=None)
        return best.factor if best else None

    def _discounted(
        self, kind: str, prices: dict[str, Price], dimensions: Dimensions, instant_ms: int
    ) -> dict[str, Price]:
        """Return list prices after what our own file corrects, and after the operator's discounts and mark-ups."""
        for file in (self._built_in, self._operator):
            factors = {
                part: self._factor(file, kind, None, price, dimensions, instant_ms) for part, price in prices.items()
            }
            prices = {
                part: price if (factor := factors[part]) is None else _times(price, factor)
                for part, price in prices.items()
            }
        return prices

    def effective(self, model: str, instant_ms: int) -> Iterator[Listed]:
        """Yield everything a model costs at an instant: each tier, batch, size and so on with a price of its own.

        What holds for any model is not in it, nor what a part costs only because another does.
        """
        seen: set[tuple[object, ...]] = set()
        for kind in (kind for kind in KINDS.values() if "model" in kind.dimensions):
            for dimensions in self._combinations(kind, model):
                classes = self.classes(kind.name, dimensions, instant_ms)
                if classes == self.classes(kind.name, {**dimensions, "model": None}, instant_ms):
                    continue
                for above, prices in classes:
                    parts = [part.name for part in PARTS_OF[kind.name] if part.name in prices]
                    for part in parts:
                        listed = _listed(kind.name, model, dimensions, above, prices[part])
                        # Kinds that cost the same are not told apart, nor is a tier that costs what a plainer one does.
                        same = listed._replace(kind="")
                        plainer = (
                            same._replace(service_tier=tier, batch=batch)
                            for tier, batch in product({same.service_tier, None}, {same.batch, None})
                        )
                        if seen.isdisjoint(plainer):
                            seen.add(same)
                            yield listed

    def _combinations(self, kind: UsageKind, model: str) -> Iterator[Dimensions]:
        """Yield the combinations of conditions that may make a difference; the plain one first."""
        names: set[str] = set(self._names(model))
        entries = [
            entry
            for entry in (*self._operator.entries, *self._built_in.entries)
            if kind.name == entry.kind and any(entry.likeness(name) for name in names)
        ]
        choices: dict[str, list[str | bool | None]] = {}
        for name in PRICE_DIMENSIONS[1:]:
            values = {entry.conditions[name] for entry in entries if name in entry.conditions} - {"default", False}
            if name == "batch" and "batch" in kind.dimensions and self._library:
                values.add(True)
            if name == "service_tier" and self._library:
                values |= {
                    tier
                    for known in names
                    if (found := self._library.find(offer(known)))
                    for tier in lists.tiers(found[1])
                }
            choices[name] = [None, *sorted(values, key=str)] if name in kind.dimensions else [None]
        for values_of in product(*choices.values()):
            yield {"model": model, **dict(zip(choices, values_of, strict=True))}

    def listed(self, instant_ms: int) -> Iterator[Listed]:
        """Yield every line of both files, and the library's standard prices at an instant."""
        for file in (self._operator, self._built_in):
            yield from (_listed_entry(file.name, entry) for entry in file.entries if entry.price is not None)
        for provider, model in self._library.models() if self._library else ():
            for above, prices in lists.prices(provider, model, instant_ms) or ():
                for price in prices.values():
                    kind = next((kind for kind, parts in PARTS_OF.items() if PARTS[price.part] in parts), "")
                    yield _listed(kind, model.id, {}, above, price)


def _as_sold(dimensions: Dimensions, offered: Offer | None) -> Dimensions:
    """Return dimensions with a model's own name, if its provider serves it, and the tier that the name says."""
    if not offered or not offered.is_own:
        return dimensions
    model, named = dimensions["model"], {"model": offered.model}
    if isinstance(model, str) and model.lower() == offered.model:
        return dimensions
    if offered.service_tier and standard_tier(dimensions.get("service_tier")) == "default":
        named["service_tier"] = offered.service_tier
    return {**dimensions, **named}


def _with_price(kind: str, classes: Classes) -> Classes:
    """Return classes if anything of the kind has a price in them."""
    parts = {part.name for part in PARTS_OF[kind]}
    return classes if any(parts & prices.keys() for _, prices in classes) else []


_ASPECTS: Final = frozenset({"service_tier", "batch", "inference_geo"})
"""Conditions of a factor that say what it is a factor for; one without them is a discount or a mark-up."""


def _place(dimensions: Dimensions) -> tuple[str, ...]:
    """Return the aspect of events that had to run in one place, nothing for the others."""
    return () if standard_geo(dimensions.get("inference_geo")) == "default" else ("inference_geo",)


def _aspects(dimensions: Dimensions) -> dict[str, str | bool]:
    """Return why an event may have a price other than the standard one: a batch job, or else its service tier."""
    if dimensions.get("batch") or dimensions.get("service_tier") == "batch":
        return {"batch": True}  # whatever tier it says: batch jobs have one price
    tier = standard_tier(dimensions.get("service_tier"))
    return {} if tier == "default" else {"service_tier": str(tier)}


def _nothing(part: Part) -> Price:
    unit = next(name for name, (measured, _) in UNITS.items() if measured == part.measured)
    return Price(part.name, Decimal(0), unit, source=SUBSCRIPTION)


def _since(entry: Entry) -> int:
    return -1 if entry.since_ms is None else entry.since_ms


def _precedence(entry: Entry) -> tuple[object, ...]:
    """What the more particular of two lines is judged by: its conditions, then its threshold, then its date."""
    order = ("batch", "service_tier", "inference_geo", "context_level", "size", "quality")
    return (*(name in entry.conditions for name in order), entry.hours is not None, entry.above, _since(entry))


def _times(price: Price, factor: Decimal) -> Price:
    """Return a price multiplied; no finer than what is measured can be charged, half up."""
    if factor == 1:
        return price
    size = UNITS[price.unit][1]
    step = Decimal(1).scaleb(len(str(size)) - 1 - SCALE)
    with localcontext(prec=_FACTOR_DIGITS):
        return replace(price, value=(price.value * factor).quantize(step, ROUND_HALF_UP).normalize())


def _listed(kind: str, model: str | None, dimensions: Dimensions, above: int, price: Price) -> Listed:
    values = {name: dimensions.get(name) for name in PRICE_DIMENSIONS[1:]}
    return Listed(
        price.provider,
        model,
        kind,
        price.part,
        _text(values["service_tier"]),
        bool(values["batch"]) or None,
        None if above < 0 else above,
        _text(values["size"]),
        _text(values["quality"]),
        _text(values["context_level"]),
        _text(values["inference_geo"]),
        None,
        price.unit,
        price.value,
        price.free or None,
        price.since_ms,
        price.until_ms,
        price.source,
        price.checked,
    )


def _listed_entry(file: str, entry: Entry) -> Listed:
    conditions = entry.conditions
    return Listed(
        entry.provider or None,
        entry.model or None,
        entry.kind,
        entry.counted,
        _text(conditions.get("service_tier")),
        None if "batch" not in conditions else bool(conditions["batch"]),
        None if entry.above < 0 else entry.above,
        _text(conditions.get("size")),
        _text(conditions.get("quality")),
        _text(conditions.get("context_level")),
        _text(conditions.get("inference_geo")),
        str(entry.hours) if entry.hours else None,
        entry.unit,
        entry.price or Decimal(0),
        entry.free or None,
        entry.since_ms,
        entry.until_ms,
        entry.source or file,
        entry.checked or None,
    )


def _text(value: str | bool | None) -> str | None:
    return None if value is None else str(value)


def built_in() -> str:
    """Return the text of our own price file."""
    return files("tallybook.prices").joinpath("builtin.csv").read_text()


def load(directory: Path, operator: Path | str | None, *, list_prices: bool = True) -> PriceBook:
    """Read a book.

    Args:
        directory: the data directory, where newer library data may be.
        operator: the operator's file; or the text of one that stands in for it.
        list_prices: whether what the operator's file does not price has the providers' list prices.

    Raises:
        CommandFailed: a file cannot be read, or has faults.
    """
    text, name = (_text_of(operator), str(operator)) if isinstance(operator, Path) else (operator, "the price file")
    own = built_in() if list_prices else ""
    library = Library(directory) if list_prices else None
    seen = "\0".join((text or "", own, library.data.digest if library else ""))
    digest = hashlib.blake2b(seen.encode(), digest_size=8).hexdigest()
    return PriceBook([] if text is None else read(text, name), read(own, "built-in") if own else [], library, digest)


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"cannot read the price file {path}: {error}") from error
