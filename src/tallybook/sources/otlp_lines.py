"""Which spans of one body are one call: those in one line of parents, and those that only look alike.

A framework and the client below it both make a span of a call, and what is above may repeat the sum of what is below.
Two response ids are two answers, and one id is one answer wherever it stands: the store sees to that. Here it is about
spans without an id, and about spans that only count if nothing else in their line does.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from tallybook.kinds import TOKEN_MEASURES
from tallybook.sources.otlp import Span
from tallybook.sources.otlp_names import RESPONSE_ID
from tallybook.sources.record import WHO, Event, Options, Unsure, is_unique_id

_OPERATION: Final = "gen_ai.operation.name"
_LEVELS_MAX: Final = 32
"""How far above a span one is looked for that is the same call."""
_ALIKE_NS: Final = 50_000_000
"""How far apart the ends of two reports of one call are, at the most."""
_ALIKE_MAX: Final = 64
"""So many pairs of instrumentations are told apart."""
_NAME_MAX: Final = 128
_LATER: Final = "streaming response from"
"""What Logfire calls the record it makes of a stream once it is over; the span before it ends with the first chunk."""

SpanKey = tuple[str, str]
"""Trace and span id."""
Parents = Mapping[SpanKey, str]
"""The id of the span above, for each span of a body that has one."""
Call = tuple[Span, Event]
_Usage = tuple[object, ...]


def key_of(span: Span) -> SpanKey:
    """Return what tells a span from every other of a body."""
    return span.trace_id, span.span_id


def repeated(calls: Sequence[Call], parents: Parents) -> set[SpanKey]:
    """Return which calls are there twice: spans without a response id, in one line with another of the same tokens.

    Of two without an id the inner one stands, else the one that has it; a span with an id stands for one span below it
    that has none. That of Google's ADK does not need the same tokens: it may leave out thoughts.
    """
    nameless = {key_of(span) for span, _ in calls if not span.attributes.get(RESPONSE_ID)}
    found = _poorer(calls, parents)
    if not nameless:
        return found
    used = {key_of(span): _used(span, event) for span, event in calls if "input_tokens" in event}
    times = Counter(used.values())
    of_adk = {key_of(span) for span, _ in calls if _is_of_adk(span)} & nameless
    for key, usage in used.items():
        if times[usage] > 1 or of_adk:
            for above in _above(key, parents):
                if above in nameless and (above in of_adk or used.get(above) == usage):
                    found.add(above)
                    break
    taken: set[SpanKey] = set()
    for key, usage in used.items():
        if key in nameless and key not in found and times[usage] > 1:
            for above in _above(key, parents):
                if above not in nameless and above not in taken and used.get(above) == usage:
                    taken.add(above)
                    found.add(key)
                    break
    return found


def _poorer(calls: Sequence[Call], parents: Parents) -> set[SpanKey]:
    """Return spans of a response that another span of it makes needless: it names more counts, or as many further in.

    An instrumentation may count a little differently from the client inside it, such as the first token of a stream
    twice, and the store, which knows neither parents nor counts that are 0, would take the larger for the richer. Who
    made the call is taken from the others where the span that stands does not say it.
    """
    names = [span.attributes.get(RESPONSE_ID) for span, _ in calls]
    if len(set(names)) == len(names):
        return set()
    named: defaultdict[str, dict[SpanKey, Event]] = defaultdict(dict)
    for (span, event), name in zip(calls, names, strict=True):
        if isinstance(name, str) and name:
            named[name][key_of(span)] = event
    found: set[SpanKey] = set()
    for name, events in named.items():
        if len(events) < 2:
            continue
        counts = {key: sum(event.get(each) is not None for each in TOKEN_MEASURES) for key, event in events.items()}
        poorer = {
            above
            for key, count in counts.items()
            for above in _above(key, parents)
            if counts.get(above, count + 1) <= count
        }
        if any(is_unique_id(name, event.get("model")) for event in events.values()):
            most = max(counts.values())
            poorer.update(key for key, count in counts.items() if count < most)
        standing = [key for key in events if key not in poorer] or list(events)[:1]  # parents may go round in a circle
        for field in WHO:
            who = next((event[field] for event in events.values() if event.get(field) is not None), None)
            if who is not None and events[standing[0]].get(field) is None:
                events[standing[0]][field] = who
        found |= poorer - {standing[0]}
    return found


def settled(
    calls: Sequence[Call], unsure: Sequence[tuple[Span, Unsure]], parents: Parents, options: Options
) -> list[bool | None]:
    """Return what becomes of spans that are not sure to be calls: counted, True; passed over, False; rejected, None.

    Nothing is lost with a span without tokens if another span of its line or of its response has them; a total counts
    only if nothing below it does. What is below may have come in an earlier request (`note_above`).
    """
    if not unsure:
        return []
    counted = {key_of(span) for span, _ in calls}
    ids = {span.attributes[RESPONSE_ID] for span, _ in calls if span.attributes.get(RESPONSE_ID)}
    above = {key for each in counted for key in _above(each, parents)}
    above_totals = {key for span, doubt in unsure if doubt.events for key in _above(key_of(span), parents)}
    later = Counter(_stream(span) for span, _ in calls if span.name.startswith(_LATER))
    found: list[bool | None] = []
    for span, doubt in unsure:
        key = key_of(span)
        if doubt.events:
            found.append(key not in above and key not in above_totals and (options.owner, key) not in options.above)
        elif (
            key in above
            or (options.owner, key) in options.above
            or span.attributes.get(RESPONSE_ID) in ids
            or not counted.isdisjoint(_above(key, parents))
        ):
            found.append(False)
        elif later[_stream(span)] > 0:
            later[_stream(span)] -= 1
            found.append(False)
        else:
            found.append(None)
    return found


def carry_up(parents: Parents, options: Options) -> None:
    """Note what earlier requests counted below the spans of a body with those above them, too."""
    owner = options.owner
    for key in parents if owner else ():
        if (noted := options.above.get((owner, key))) is not None:
            for above in _above(key, parents):
                _note_below((owner, above), noted, options)


def counted_before(calls: Sequence[Call], parents: Parents, options: Options) -> set[SpanKey]:
    """Return which calls an earlier request counted: by the rules of `repeated`, of which one span came alone.

    What was counted stands, even where the other would have been chosen: to count both is worse.
    """
    owner = options.owner
    found: set[SpanKey] = set()
    for span, event in calls if owner else ():
        if "input_tokens" not in event:
            continue
        key, usage, is_named = key_of(span), hash(_used(span, event)), bool(span.attributes.get(RESPONSE_ID))
        below = options.above.get((owner, key), ())
        if (usage, False) in below or (not is_named and ((usage, True) in below or (below and _is_of_adk(span)))):
            found.add(key)
            continue
        for above in _above(key, parents):
            used, was_named, taker = options.above.get((owner, above, _COUNTED), _NOTHING)
            if used == usage and not (is_named and was_named) and taker in (None, hash(key)):
                options.above.put((owner, above, _COUNTED), (used, was_named, hash(key)))
                options.above.note((owner, key, _COUNTED), (used, was_named, None))  # for what is below this one
                found.add(key)
                break
    return found


_COUNTED: Final = "counted"
_NOTHING: Final = (None, False, None)
"""What is noted of a span that was counted: its usage, whether it has a response id, and the span below that it is."""
_BELOW_MAX: Final = 4
"""So many calls are noted for a span above them."""


def note_above(calls: Sequence[Call], parents: Parents, roots: Collection[SpanKey], options: Options) -> None:
    """Note calls, and the spans above them that are still to come: exporters send a span when it ends."""
    owner = options.owner
    for span, event in calls if owner else ():
        *_, top = (key_of(span), *_above(key_of(span), parents))
        usage = hash(_used(span, event)) if "input_tokens" in event else None
        is_named = bool(span.attributes.get(RESPONSE_ID))
        if usage is not None:
            options.above.note((owner, key_of(span), _COUNTED), (usage, is_named, None))
        if top not in roots:
            _note_below((owner, top), ((usage, is_named),), options)


def _note_below(name: tuple[str, SpanKey], more: tuple[tuple[int | None, bool], ...], options: Options) -> None:
    noted = options.above.get(name, ())
    if new := [each for each in more if each not in noted]:
        options.above.put(name, (*noted, *new)[:_BELOW_MAX])


def note_alike(calls: Sequence[Call], options: Options) -> None:
    """Note pairs of calls that look like two reports of one: same service, model and tokens, ending together.

    Of two instrumentations, and at least one without a response id.
    """
    scopes = {span.scope for span, _ in calls}
    if len(scopes) < 2:
        return
    groups: defaultdict[_Usage, list[Span]] = defaultdict(list)
    for span, event in calls:
        if event.get("input_tokens"):
            service = span.resource.get("service.name")
            used = event["kind"], event.get("model"), event["input_tokens"], event.get("output_tokens")
            groups[service, *used].append(span)
    for spans in groups.values():
        spans.sort(key=lambda span: span.end_ns)
        for first, second in pairwise(spans):
            has_both_ids = first.attributes.get(RESPONSE_ID) and second.attributes.get(RESPONSE_ID)
            if first.scope != second.scope and not has_both_ids and second.end_ns - first.end_ns <= _ALIKE_NS:
                pair = " | ".join(sorted((first.scope[:_NAME_MAX] or "-", second.scope[:_NAME_MAX] or "-")))
                if pair in options.alike or len(options.alike) < _ALIKE_MAX:
                    options.alike[pair] += 1


def _above(key: SpanKey, parents: Parents) -> Iterator[SpanKey]:
    """Yield the spans above one, the nearest first; a span that is above itself is not."""
    place = key
    for _ in range(_LEVELS_MAX):
        if not (parent := parents.get(place)):
            return
        place = (key[0], parent)
        if place == key:
            return
        yield place


def _stream(span: Span) -> tuple[str, str, object]:
    """Return what the two spans of a stream have in common."""
    trace_id = span.trace_id if span.parent_id else ""
    return trace_id, span.parent_id, span.attributes.get("gen_ai.request.model")


def _is_of_adk(span: Span) -> bool:
    return span.attributes.get("gen_ai.system") == "gcp.vertex.agent" and _OPERATION not in span.attributes


def _used(span: Span, event: Event) -> _Usage:
    return span.trace_id, event["kind"], event["input_tokens"], event.get("output_tokens")
