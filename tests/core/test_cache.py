"""What the exact cache may serve and what it may keep: whole tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underlay.core import cache
from underlay.core.cache import (
    NO_DIRECTIVES,
    Directives,
    Entry,
    Found,
    Keep,
    Lacking,
    Leave,
    directives_of,
    plan_lookup,
    plan_store,
    replay_headers,
    stored_headers,
)

ENTRY = Entry(200, (), (b"{}",), stored_at=1000.0, ttl=60.0, size=2, stream=False, duration=1.0)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], NO_DIRECTIVES),
        ([b""], NO_DIRECTIVES),
        ([b"no-store"], Directives(no_store=True)),
        ([b" No-Store "], Directives(no_store=True)),
        ([b"no-cache"], Directives(no_cache=True)),
        ([b'no-cache="set-cookie"'], Directives(no_cache=True)),
        ([b"max-age=0"], Directives(max_age=0.0)),
        ([b"max-age=60"], Directives(max_age=60.0)),
        ([b'MAX-AGE="60"'], Directives(max_age=60.0)),
        ([b"max-age"], Directives(max_age=0.0)),
        ([b"max-age="], Directives(max_age=0.0)),
        ([b"max-age=-1"], Directives(max_age=0.0)),
        ([b"max-age=1.5"], Directives(max_age=0.0)),
        ([b"max-age=inf"], Directives(max_age=0.0)),
        (["max-age=²".encode("latin-1")], Directives(max_age=0.0)),
        ([b"no-cache, max-age=5 ,no-store"], Directives(no_store=True, no_cache=True, max_age=5.0)),
        ([b"no-cache", b"no-store"], Directives(no_store=True, no_cache=True)),
        ([b"only-if-cached, no-transform, max-stale=5, min-fresh=5, x-no-store"], NO_DIRECTIVES),
        ([b"\xff\xfe, no-store"], Directives(no_store=True)),
    ],
)
def test_the_request_says(values: list[bytes], wanted: Directives) -> None:
    """no-store, no-cache and max-age are read in any spelling, an unreadable age as the strictest, and the rest
    is ignored."""
    assert directives_of(values) == wanted


@given(st.lists(st.binary(max_size=20), max_size=3))
def test_no_header_value_is_too_strange_to_read(values: list[bytes]) -> None:
    """Whatever bytes a Cache-Control header has, reading it raises nothing."""
    assert isinstance(directives_of(values), Directives)


@pytest.mark.parametrize(
    ("age", "directives", "wanted"),
    [
        (0.0, NO_DIRECTIVES, Found(ENTRY, 0.0, 60.0)),
        (59.5, NO_DIRECTIVES, Found(ENTRY, 59.5, 0.5)),
        (60.0, NO_DIRECTIVES, Lacking("expired", expired=True)),
        (600.0, Directives(no_cache=True), Lacking("expired", expired=True)),
        (-5.0, NO_DIRECTIVES, Found(ENTRY, 0.0, 60.0)),
        (1.0, Directives(no_cache=True), Lacking("no_cache")),
        (1.0, Directives(no_store=True), Lacking("no_cache")),
        (10.0, Directives(max_age=10.0), Found(ENTRY, 10.0, 50.0)),
        (10.1, Directives(max_age=10.0), Lacking("too_old")),
        (0.0, Directives(max_age=0.0), Found(ENTRY, 0.0, 60.0)),
        (61.0, Directives(max_age=999.0), Lacking("expired", expired=True)),
    ],
)
def test_an_entry_may_answer(age: float, directives: Directives, wanted: Found | Lacking) -> None:
    """Within its time, and as young as the caller wants it: directives make it stricter, never laxer."""
    assert plan_lookup(ENTRY, 1000.0 + age, directives) == wanted


def test_nothing_is_lacking() -> None:
    """Without an entry nothing is served, whatever was asked."""
    assert plan_lookup(None, 0.0, NO_DIRECTIVES) == Lacking("absent")


GOOD = {"complete": True, "storable": True, "error": False, "fits": True, "directives": NO_DIRECTIVES}


@pytest.mark.parametrize(
    ("status", "change", "wanted"),
    [
        (200, {}, Keep()),
        (200, {"complete": False}, Leave("incomplete")),
        (200, {"error": True}, Leave("error")),
        (200, {"error": True, "complete": False}, Leave("error")),
        (200, {"storable": False}, Leave("not_storable")),
        (200, {"fits": False}, Leave("too_large")),
        (200, {"directives": Directives(no_store=True)}, Leave("no_store")),
        (200, {"directives": Directives(no_cache=True, max_age=0.0)}, Keep()),
        (500, {"directives": Directives(no_store=True)}, Leave("no_store")),
        *((status, {}, Leave("status")) for status in (100, 201, 202, 203, 204, 206, 301, 304, 400, 401, 404, 429, 500, 503, 529)),
    ],
)  # fmt: skip
def test_an_answer_may_be_kept(status: int, change: dict[str, object], wanted: Keep | Leave) -> None:
    """Only a 200 that ended cleanly, without an error inside, and that was held whole is stored."""
    assert plan_store(status, **{**GOOD, **change}) == wanted  # type: ignore[arg-type]


DROPPED = [
    "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection", "x-request-id", "request-id",
    "apim-request-id", "x-ms-request-id", "cf-ray", "traceparent", "tracestate", "retry-after", "x-should-retry", "set-cookie", "age",
    "cache-status", "openai-processing-ms", "x-ratelimit-limit-requests", "x-ratelimit-reset-tokens", "ratelimit", "ratelimit-policy",
    "anthropic-ratelimit-input-tokens-remaining", "retry-after-ms", "x-amzn-requestid", "x-envoy-upstream-service-time", "x-client-request-id", "x-correlation-id", "x-amzn-trace-id",
]  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_a_header_of_the_exchange_is_not_of_the_answer(name: str) -> None:
    """Hop-by-hop, pacing, provenance and cookies of the first request are not replayed, in any case of letters."""
    for spelled in (name, name.upper(), name.title()):
        assert stored_headers([(b"a", b"1"), (spelled.encode(), b"x"), (b"b", b"2")]) == (
            (b"a", b"1"),
            (b"b", b"2"),
        )


def test_headers_of_the_answer_come_back_as_they_came() -> None:
    """Type, coding, length and the provider's own headers keep order, case and repetition."""
    kept = [
        (b"Content-Type", b"application/json"),
        (b"content-encoding", b"gzip"),
        (b"Content-Length", b"9"),
        (b"Date", b"d"),
        (b"vary", b"a"),
        (b"Vary", b"b"),
        (b"openai-version", b"v"),
        (b"x-ratelimited", b"1"),
    ]
    assert stored_headers(kept) == tuple(kept)


def test_a_hit_says_that_it_is_one() -> None:
    """`Age` and `Cache-Status` come after the stored headers, in whole seconds that are not rounded up."""
    assert replay_headers([(b"a", b"1")], 1.99, 58.99) == [
        (b"a", b"1"),
        (b"age", b"1"),
        (b"cache-status", b"underlay; hit; ttl=58"),
    ]


def test_names_of_headers_are_remembered_within_a_bound() -> None:
    """Servers make them up: what is remembered of three thousand is bounded, and each is judged as ever."""
    made_up = [(b"x-made-up-%d" % number, b"v") for number in range(3000)]
    dropped = [(b"X-RateLimit-%d" % number, b"v") for number in range(3000)]
    mixed = [header for pair in zip(made_up, dropped, strict=True) for header in pair]
    assert [stored_headers(mixed) for _ in range(2)] == [tuple(made_up)] * 2
    assert 0 < len(cache._stays) <= cache._SPELLINGS
