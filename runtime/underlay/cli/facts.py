"""What underlay knew and decided about one span, in words; and which attributes may be shown at all.

Only attributes of the vocabulary and a few of the HTTP conventions are ever shown. Everything else may hold
a prompt, an answer, a credential or a query string.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from underlay.cli.output import duration, usd
from underlay.telemetry import attributes as a
from underlay.telemetry.attributes import BatchMode, BatchTrigger, CacheResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from underlay.cli.span_model import Span

__all__ = ["company", "error_of", "facts", "http_status", "outcome", "shown_attributes", "tokens"]

_METHODS: Final = ("http.request.method", "http.method")
_STATUSES: Final = (a.HTTP_STATUS.key, "http.status_code")
_SHOWN: Final = frozenset(attribute.key for attribute in a.ALL).union(
    _METHODS, _STATUSES, ("network.protocol.version", "exception.type")
)
_CLOSED_BY: Final[Mapping[str, str]] = {
    BatchTrigger.SIZE: "it was full",
    BatchTrigger.TIME: "its time was over",
    BatchTrigger.IDLE: "nothing else was in flight",
    BatchTrigger.DEADLINE: "a call could not wait longer",
}


def shown_attributes(attributes: Mapping[str, object]) -> dict[str, object]:
    """The attributes that may leave this program."""
    return {key: value for key, value in attributes.items() if key in _SHOWN}


def error_of(span: Span) -> str:
    """The kind of failure of a span; empty when it did not fail."""
    status = http_status(span)
    return span.text(a.ERROR_TYPE) or (str(status or "error") if span.status == "error" else "")


def outcome(span: Span) -> str:
    """One word for how a call went: `failed`, or how it was answered."""
    result = span.text(a.CACHE_RESULT)
    return "failed" if error_of(span) and result != CacheResult.REFUSED else result


def http_status(span: Span) -> int | None:
    """The HTTP status of a span, under the name of either generation of the conventions."""
    values = (span.attributes.get(key) for key in _STATUSES)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def tokens(span: Span) -> str:
    """Input and output tokens as `120/48`, with `?` for what is unknown; empty when both are."""
    counts = (span.whole(a.INPUT_TOKENS), span.whole(a.OUTPUT_TOKENS))
    if counts == (None, None):
        return ""
    return "/".join("?" if count is None else f"{count:,}" for count in counts)


def facts(span: Span, arrow: str = "->") -> list[list[str]]:
    """What happened in a span, in rows of short phrases: cache, window, circuit, usage, reply, error. Empty
    rows are left out.
    """
    rows = (
        _cache(span),
        _window(span),
        _pacing(span),
        _circuit(span, arrow),
        _usage(span),
        _reply(span),
        _failure(span),
    )
    return [row for row in rows if row]


def _cache(span: Span) -> list[str]:
    result, reason = span.text(a.CACHE_RESULT), span.text(a.CACHE_REASON)
    because = f" ({reason})" if reason else ""
    row = [f"cache: {result}{because}"] if result and result != CacheResult.REFUSED else []
    if result == CacheResult.COALESCED:
        # Why the cache had nothing is no news here: an identical call was fetching it.
        row = ["coalesced: read the answer of an identical call", "nothing was sent"]
    wait = span.number(a.COALESCE_WAIT)
    if wait is not None:
        row.append(f"first bytes after {duration(wait)}")
    age = span.number(a.CACHE_AGE)
    if age is not None:
        row.append(f"answer {duration(age)} old")
    stored = span.attributes.get(a.CACHE_STORED.key)
    if isinstance(stored, bool):
        row.append("stored" if stored else "not stored")
    observed = span.text(a.CACHE_OBSERVED)
    if observed:
        row.append(f"observing: would be a {observed}")
    if span.text(a.COALESCE_OBSERVED):
        row.append(f"observing: would be {span.text(a.COALESCE_OBSERVED)}")
    key = span.text(a.CACHE_KEY)
    if key:
        row.append(f"key {key}")
    return row


def _pacing(span: Span) -> list[str]:
    wait = span.number(a.PACING_WAIT)
    if wait is not None:
        return [f"paced: waited {duration(wait)} for its turn among many calls"]
    observed = span.text(a.PACING_OBSERVED)
    return [f"observing: would be {observed} for its event loop's turn"] if observed else []


def company(span: Span) -> str:
    """With how many others a call left its window: `merged with 5 others`; empty when it was in none,
    or nobody else came."""
    size, mode = span.whole(a.BATCH_SIZE), span.text(a.BATCH_MODE)
    if size is None or size < 2 or mode not in (BatchMode.MERGED, BatchMode.RELEASED):
        return ""
    return f"{mode} with {size - 1} other{'s' if size != 2 else ''}"


def _window(span: Span) -> list[str]:
    """Of a call: whom it left with. Of a dispatch: what left."""
    trigger, mode, size = span.text(a.BATCH_TRIGGER), span.text(a.BATCH_MODE), span.whole(a.BATCH_SIZE)
    row: list[str] = []
    if trigger and span.text(a.CACHE_RESULT):
        together = company(span)
        ways = " into one request" if mode == BatchMode.MERGED else ", each its own request"
        row.append(f"window: {together}{ways}" if together else "window: nobody else came")
    elif trigger and size is not None:
        row += _dispatched(span, mode, size)
    if trigger:
        meaning = _CLOSED_BY.get(trigger)
        row.append(f"closed by {trigger}" + (f": {meaning}" if meaning else ""))
    wait = span.number(a.BATCH_WAIT)
    if wait is not None:
        row.append(f"{'the first ' if _several(span) else ''}waited {duration(wait)}")
    if span.attributes.get(a.BATCH_APART.key) is True:
        row.append("the calls were sent one by one after all")
    if span.text(a.BATCH_OBSERVED):
        row.append(f"observing: would be {span.text(a.BATCH_OBSERVED)}")
    return row


def _several(span: Span) -> bool:
    """Whether this is the dispatch of several calls, whose wait is that of the first one."""
    return not span.text(a.CACHE_RESULT) and (span.whole(a.BATCH_SIZE) or 0) > 1


def _dispatched(span: Span, mode: str, size: int) -> list[str]:
    calls, inputs = f"{size:,} call{'s' if size != 1 else ''}", span.whole(a.BATCH_INPUTS)
    part, fill = span.whole(a.BATCH_PART), span.number(a.BATCH_FILL)
    row = [f"{calls} {mode}" if mode != BatchMode.ALONE else f"{calls}, nobody else came"]
    if mode == BatchMode.MERGED and inputs is not None:
        row = [f"{calls} merged into one request of {inputs:,} inputs"]
    if part is not None:
        row.append(f"part {part} of its links")
    if fill is not None:
        row.append(f"{fill:.0%} full")
    return row


def _circuit(span: Span, arrow: str) -> list[str]:
    state, left = span.text(a.CIRCUIT_STATE), span.text(a.CIRCUIT_FROM)
    row = [f"circuit: {left} {arrow} {state}" if left else f"circuit: {state}"] if state else []
    if span.text(a.CACHE_RESULT) == CacheResult.REFUSED:
        row = [row[0] if row else "circuit", "refused, nothing was sent"]
    if span.text(a.CIRCUIT_REASON):
        row.append(f"reason {span.text(a.CIRCUIT_REASON)}")
    failures = span.whole(a.CIRCUIT_FAILURES)
    if failures:
        row.append(f"{failures} failures in a row")
    retry_after = span.number(a.RETRY_AFTER)
    if retry_after is not None:
        row.append(f"next probe in {duration(retry_after)}")
    observed = span.text(a.CIRCUIT_OBSERVED)
    if observed:
        row.append(f"observing: would be {observed}")
    return row


def _usage(span: Span) -> list[str]:
    row: list[str] = []
    counted = tokens(span)
    sent = bool(span.text(a.VERDICT))
    if counted:
        row.append(f"tokens {counted} in/out")
    elif sent and not error_of(span):
        row.append("tokens unknown")
    read, reasoned = span.whole(a.CACHE_READ_TOKENS), span.whole(a.REASONING_TOKENS)
    if read:
        row.append(f"{read:,} read from the provider's cache")
    if reasoned:
        row.append(f"{reasoned:,} of reasoning")
    cost, saved = span.number(a.COST), span.number(a.SAVED)
    if cost is not None:
        row.append(f"cost {usd(cost)}")
    elif counted and sent:
        row.append("cost unknown")
    if saved is not None:
        row.append(f"saved {usd(saved)}")
    return row


def _reply(span: Span) -> list[str]:
    row: list[str] = []
    status = http_status(span)
    method = next((value for key in _METHODS if isinstance(value := span.attributes.get(key), str)), "")
    if status is not None:
        row.append(f"{method} HTTP {status}".strip())
    first, chunks = span.number(a.TIME_TO_FIRST_CHUNK), span.whole(a.CHUNKS)
    if span.attributes.get(a.REQUEST_STREAM.key) is True:
        row.append("stream" if chunks is None else f"stream of {chunks:,} chunks")
    if first is not None:
        row.append(f"first chunk after {duration(first)}")
    ending, verdict = span.text(a.ENDING), span.text(a.VERDICT)
    if ending:
        row.append(f"ended {ending}")
    if verdict:
        row.append(f"attempt: {verdict}")
    answered = span.text(a.RESPONSE_MODEL)
    if answered and answered != span.text(a.REQUEST_MODEL):
        row.append(f"answered by {answered}")
    return row


def _failure(span: Span) -> list[str]:
    error = error_of(span)
    return [f"error: {error}"] if error else []
