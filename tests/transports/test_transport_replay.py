"""Miss, then hit: what is stored comes back as it came."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from transport_lab import (
    CHAT_ASK,
    CHAT_FRAMES,
    CHAT_URL,
    DIALECTS,
    KEY,
    SSE_TYPE,
    Lab,
    json_reply,
    stream_reply,
)

from underlay.telemetry.attributes import CacheResult
from underlay.telemetry.events import CacheLooked
from underlay.testing import Scripted


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_a_json_answer_comes_back_byte_for_byte(lab: Lab, dialect: str) -> None:
    """A repeated JSON call is answered with the same status and bytes, and nothing is sent."""
    url, ask, answer, _ = DIALECTS[dialect]
    lab.setup([json_reply(answer)])

    async def scenario() -> None:
        client = lab.client()
        first, second = await lab.post(client, url, ask), await lab.post(client, url, ask)
        assert (second.status_code, second.content) == (200, first.content)
        assert second.json() == answer
        assert lab.upstream == 1
        assert lab.last(CacheLooked).result is CacheResult.HIT

    lab.run(scenario)
    assert lab.faults == {}


@pytest.mark.parametrize("dialect", [name for name, row in DIALECTS.items() if row[3]])
def test_a_stream_comes_back_frame_for_frame(lab: Lab, dialect: str) -> None:
    """A repeated stream is replayed with the same frames at the same borders."""
    url, ask, _, wanted = DIALECTS[dialect]
    lab.setup([stream_reply(wanted)])

    async def scenario() -> None:
        client = lab.client()
        for result in (CacheResult.MISS, CacheResult.HIT):
            response = await lab.open(client, url, {**ask, "stream": True})
            assert await lab.frames(response).rest() == list(wanted)
            await lab.close(response)
            assert lab.last().result is result
        assert (lab.upstream, lab.script.opened, lab.script.closed) == (1, 1, 1)

    lab.run(scenario)
    assert lab.faults == {}


@pytest.mark.parametrize("cuts", [1, 7, 100_000])
@pytest.mark.parametrize("stream", [False, True])
def test_a_compressed_answer_is_read_stored_and_replayed_as_it_came(
    lab: Lab, cuts: int, stream: bool
) -> None:
    """The raw gzip bytes and their header are replayed together, and the books read what is inside."""
    plain = b"".join(CHAT_FRAMES) if stream else json_reply().frames[0]
    assert isinstance(plain, bytes)
    packed = gzip.compress(plain)
    frames = [packed[at : at + cuts] for at in range(0, len(packed), cuts)]
    kind = SSE_TYPE if stream else {"content-type": "application/json"}
    lab.setup([Scripted(200, {**kind, "content-encoding": "gzip"}, frames)])

    async def scenario() -> None:
        client = lab.client()
        first = await lab.post(client, body={**CHAT_ASK, "stream": stream})
        assert lab.attempt.usage is not None
        assert lab.attempt.stored
        second = await lab.open(client, body={**CHAT_ASK, "stream": stream})
        assert second.headers["content-encoding"] == "gzip"
        assert await lab.frames(second).rest() == frames
        await lab.close(second)
        third = await lab.post(client, body={**CHAT_ASK, "stream": stream})
        assert (first.content, third.content) == (plain, plain)

    lab.run(scenario)
    assert lab.upstream == 1
    assert lab.faults == {}


def test_one_body_serves_every_family_and_mode() -> None:
    """What a synchronous httpx client stored is replayed to every other kind of client, frame for frame."""
    from transport_lab import WAYS

    first = Lab(WAYS[0]).setup([stream_reply()])
    for way in WAYS:
        lab = Lab(way)
        lab.script, lab.runtime, lab.recorder = first.script, first.runtime, first.recorder

        async def scenario(lab: Lab = lab) -> list[bytes]:
            response = await lab.open(
                lab.client(),
                body={**CHAT_ASK, "stream": True},
                headers={**KEY, "user-agent": "x", "accept-encoding": "identity"},
            )
            got: list[bytes] = await lab.frames(response).rest()
            await lab.close(response)
            return got

        assert lab.run(scenario) == list(CHAT_FRAMES)
    assert len(first.script.sent) == 1


def test_headers_of_a_hit(lab: Lab) -> None:
    """A hit says its age and where it comes from, keeps the answer's own headers, and drops those that were
    about the first exchange."""
    gone = {
        "x-request-id": "req_1", "request-id": "req_2", "x-ratelimit-remaining-tokens": "7", "anthropic-ratelimit-tokens-limit": "1",
        "retry-after": "9", "set-cookie": "__cf_bm=b", "connection": "keep-alive", "transfer-encoding": "chunked", "age": "99",
        "openai-processing-ms": "12", "cf-ray": "1", "X-Should-Retry": "true",
    }  # fmt: skip
    kept = {"openai-organization": "org", "openai-version": "2020-10-01", "Content-Type": "application/json"}
    lab.setup([Scripted(200, {**gone, **kept}, json_reply().frames)], llm_cache={"ttl": 100})

    async def scenario() -> Any:
        client = lab.client()
        miss = await lab.post(client)
        assert {name: miss.headers[name] for name in gone} == gone
        lab.clock.advance(40.9)
        return await lab.post(client)

    hit = lab.run(scenario)
    assert [
        (name, value) for name, value in hit.headers.raw if name.lower() not in (b"age", b"cache-status")
    ] == [(name.encode(), value.encode()) for name, value in kept.items()]
    assert hit.headers["age"] == "40"
    assert hit.headers["cache-status"] == "underlay; hit; ttl=59"


def test_an_entry_lives_as_long_as_its_time(lab: Lab) -> None:
    """Served until just before its time is up, asked again at it."""
    lab.setup([json_reply()], llm_cache={"ttl": 100})

    async def scenario() -> None:
        client = lab.client()
        await lab.post(client)
        lab.clock.advance(99.5)
        await lab.post(client)
        assert lab.upstream == 1
        lab.clock.advance(0.5)
        await lab.post(client)
        assert lab.upstream == 2
        assert lab.runtime.cache.expirations == 1

    lab.run(scenario)


def test_another_credential_is_another_scope(lab: Lab) -> None:
    """An answer is never served across credentials, unless a namespace names the scope."""
    for settings, sent in (({}, 2), ({"namespace": "team"}, 1)):
        lab.setup([json_reply()], llm_cache=settings)

        async def scenario() -> None:
            client = lab.client()
            for key in ("one", "two"):
                await lab.post(client, headers={"authorization": f"Bearer {key}"})

        lab.run(scenario)
        assert lab.upstream == sent


@pytest.mark.parametrize(
    ("first", "second", "sent", "stored"),
    [
        ("no-store", "", 2, False),
        ("", "no-store", 2, True),
        ("", "no-cache", 2, True),
        ("no-cache", "", 1, True),
        ("", "max-age=10", 1, True),
        ("", "max-age=9", 2, True),
        ("", "Max-Age=soon", 2, True),
        ("", "max-stale=99, x=y", 1, True),
    ],
)
def test_the_callers_cache_control_is_obeyed(
    lab: Lab, first: str, second: str, sent: int, stored: bool
) -> None:
    """no-store is neither served nor kept, no-cache is asked again and kept, max-age bounds the age."""
    lab.setup([json_reply()])

    async def scenario() -> None:
        client = lab.client()
        await lab.post(client, headers={**KEY, **({"cache-control": first} if first else {})})
        assert lab.attempt.stored is stored
        lab.clock.advance(10)
        await lab.post(client, headers={**KEY, **({"cache-control": second} if second else {})})

    lab.run(scenario)
    assert lab.upstream == sent


def test_observe_reports_hits_and_sends_all_the_same(lab: Lab) -> None:
    """In observe mode the cache says what it would have served, and every call goes upstream."""
    lab.setup([json_reply()], llm_cache={"mode": "observe"})

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            response = await lab.post(client)
            assert "age" not in response.headers
        looked = lab.last(CacheLooked)
        assert (looked.result, looked.observed, looked.origin) == (CacheResult.HIT, True, b"1")
        assert lab.last().result is CacheResult.MISS

    lab.run(scenario)
    assert lab.upstream == 2


def test_off_stores_and_serves_nothing(lab: Lab) -> None:
    """With the cache off nothing is kept, and the books do not claim that anything was."""
    lab.setup([json_reply()], llm_cache={"mode": "off"})

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            await lab.post(client, CHAT_URL)
            assert lab.last().result is CacheResult.BYPASS
            assert (lab.attempt.stored, lab.attempt.store_reason) == (False, "off")

    lab.run(scenario)
    assert lab.upstream == 2
    assert lab.runtime.cache.size == 0


def test_an_answer_larger_than_an_entry_passes_whole_and_is_not_kept(lab: Lab) -> None:
    """Beyond the entry's cap the body is passed on in full and not stored."""
    lab.setup(
        [stream_reply([*CHAT_FRAMES[:1], b": " + b"x" * 5000 + b"\n\n", *CHAT_FRAMES[1:]])],
        llm_cache={"max_entry_bytes": 4096},
    )

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            response = await lab.post(client)
            assert len(response.content) == sum(map(len, CHAT_FRAMES)) + 5004
            assert (lab.attempt.stored, lab.attempt.store_reason, lab.attempt.verdict) == (
                False,
                "too_large",
                "success",
            )

    lab.run(scenario)
    assert lab.upstream == 2


@pytest.mark.parametrize(
    ("cookie", "sent"), [("__cf_bm={}; path=/", 1), ("_cfuvid={}; path=/", 1), ("session={}; path=/", 3)]
)
def test_cookies_of_the_providers_front_do_not_split_the_scope(lab: Lab, cookie: str, sent: int) -> None:
    """Cloudflare's own cookies, which clients send back by themselves, leave the scope as it was; any other
    cookie may say who asks."""
    made = iter(range(9))
    lab.setup(
        lambda _: Scripted(
            200,
            {"content-type": "application/json", "set-cookie": cookie.format(next(made))},
            json_reply().frames,
        )
    )

    async def scenario() -> None:
        client = lab.client()
        for _ in range(3):
            await lab.post(client)

    lab.run(scenario)
    assert lab.upstream == sent
