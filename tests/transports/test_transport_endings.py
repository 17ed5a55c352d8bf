"""What counts as the end of a body: read before, closed unread, cut, left, dropped, or read by two."""

from __future__ import annotations

import gc
import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from transport_lab import (
    CHAT,
    CHAT_ASK,
    CHAT_FRAMES,
    CHAT_URL,
    JSON_TYPE,
    KEY,
    Lab,
    dumped,
    json_reply,
    stream_reply,
)

from underlay.telemetry.attributes import CacheResult, Ending
from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import Scripted

# httpx leaves a generator of its own behind when a body is left early, which trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")
ASK = {**CHAT_ASK, "stream": True}


def spent_once(lab: Lab, frames: list[bytes]) -> Any:
    """A body like that of a network transport: pulled again after its end, it would not end."""
    left = iter(frames)
    ended: list[int] = []

    def following() -> bytes | None:
        frame = next(left, None)
        if frame is None:
            assert not ended, "a spent stream was pulled again"
            ended.append(1)
        return frame

    if lab.kind == "sync":

        class Sync(lab.module.SyncByteStream):  # type: ignore[misc,name-defined]
            def __iter__(self) -> Any:
                while (frame := following()) is not None:
                    yield frame

        return Sync()

    class Async(lab.module.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            if (frame := following()) is None:
                raise StopAsyncIteration
            return frame

    return Async()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_response_that_the_apps_transport_has_read_is_handed_on(
    lab: Lab, stream: bool, coding: str
) -> None:
    """A transport that reads its responses (to log or record them): the caller gets that very response, its
    spent stream is never pulled again, and the answer is recorded, stored and replayed as what was read."""
    plain = b"".join(CHAT_FRAMES) if stream else dumped(CHAT)
    wire = gzip.compress(plain) if coding else plain
    kind = "text/event-stream" if stream else "application/json"
    headers = {"content-type": kind, "x-own": "1", **({"content-encoding": coding} if coding else {})}
    made: list[Any] = []

    def handle(request: Any) -> Any:
        response = lab.module.Response(200, headers=headers, stream=spent_once(lab, [wire[:9], wire[9:]]))
        made.append(response)
        if lab.kind == "sync":
            response.read()
            return response

        async def read() -> Any:
            await response.aread()
            return response

        return read()

    lab.setup([])

    async def scenario() -> None:
        client = lab.client(lab.transport(handle))
        first = await lab.post(client, body={**CHAT_ASK, "stream": stream})
        assert first is made[0]
        assert (first.content, first.headers.get("content-encoding", "")) == (plain, coding)
        attempt = lab.attempt
        assert (attempt.verdict, attempt.stored, attempt.usage is not None) == ("success", True, True)
        assert lab.last().ending is Ending.COMPLETE
        hit = await lab.post(client, body={**CHAT_ASK, "stream": stream})
        assert (hit.content, hit.headers["x-own"]) == (plain, "1")
        assert "content-encoding" not in hit.headers
        assert lab.last().result is CacheResult.HIT

    lab.run(scenario)
    assert len(made) == 1
    assert lab.faults == {}


def test_a_response_that_was_closed_unread_fails_as_with_a_bare_client(lab: Lab) -> None:
    """A transport that closes its response unread: the caller meets the family's own error, the provider is
    not blamed, and nothing is kept."""

    def handle(request: Any) -> Any:
        response = lab.module.Response(200, headers=JSON_TYPE, stream=spent_once(lab, [dumped(CHAT)]))
        if lab.kind == "sync":
            response.close()
            return response

        async def closed() -> Any:
            await response.aclose()
            return response

        return closed()

    lab.setup([])

    async def scenario() -> None:
        seen = []
        for transport in (lab.transport(handle), lab.wrap(lab.transport(handle))):
            try:
                await lab.post(lab.bare(transport))
            except RuntimeError as error:
                seen.append(type(error))
        assert len(seen) == 2
        assert seen[0] is seen[1]
        assert (lab.attempt.verdict, lab.attempt.stored) == ("nothing", False)

    lab.run(scenario)


def test_json_whose_framing_breaks_after_its_last_byte_is_not_whole(lab: Lab) -> None:
    """A body that parses and then fails was not ended cleanly: the reader gets the error, nothing is kept,
    and the provider is blamed."""
    error = lab.module.RemoteProtocolError("peer closed connection without sending complete message body")
    lab.setup([Scripted(200, JSON_TYPE, [dumped(CHAT), error])])

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            with pytest.raises(lab.module.RemoteProtocolError) as caught:
                await lab.post(client)
            assert caught.value is error
            attempt = lab.attempt
            assert (attempt.verdict, attempt.stored, attempt.store_reason) == ("failure", False, "incomplete")
            assert (lab.last().ending, lab.last().error_type) == (Ending.FAILED, "RemoteProtocolError")

    lab.run(scenario)
    assert lab.upstream == 2


def test_a_stream_that_breaks_after_its_terminal_event_is_whole(lab: Lab) -> None:
    """Behind `[DONE]` nothing of the answer can be missing: it is kept, and nobody is blamed."""
    lab.setup([stream_reply([*CHAT_FRAMES, lab.module.ReadError("late")])])

    async def scenario() -> None:
        client = lab.client()
        with pytest.raises(lab.module.ReadError):
            await lab.post(client, body=ASK)
        assert (lab.attempt.verdict, lab.attempt.stored) == ("success", True)
        assert (await lab.post(client, body=ASK)).content == b"".join(CHAT_FRAMES)

    lab.run(scenario)
    assert lab.upstream == 1


def test_json_that_is_left_before_its_end_was_seen_is_not_kept(lab: Lab) -> None:
    """Without the end of its framing a JSON body may go on: left there it is neither kept nor judged."""
    lab.setup([json_reply()])

    async def scenario() -> None:
        response = await lab.open(lab.client())
        frames = lab.frames(response)
        assert await frames.next() == dumped(CHAT)
        await lab.close(response)
        assert (lab.attempt.verdict, lab.attempt.stored, lab.last().ending) == (
            "nothing",
            False,
            Ending.CLOSED,
        )
        await frames.close()

    lab.run(scenario)


@pytest.mark.parametrize(
    ("read", "ending"), [(0, Ending.CLOSED), (1, Ending.CLOSED), (len(CHAT_FRAMES), Ending.COMPLETE)]
)
def test_a_hit_that_is_left_early_says_so(lab: Lab, read: int, ending: Ending) -> None:
    """How a replay ended for its reader is the reader's doing, though the stored body is whole."""
    lab.setup([stream_reply()])

    async def scenario() -> None:
        client = lab.client()
        await lab.post(client, body=ASK)
        response = await lab.open(client, body=ASK)
        frames = lab.frames(response)
        for _ in range(read):
            await frames.next()
        await lab.close(response)
        assert (lab.last().result, lab.last().ending) == (CacheResult.HIT, ending)
        await frames.close()

    lab.run(scenario)


def test_a_hit_that_is_dropped_unread_says_so(lab: Lab) -> None:
    """A replay that nobody read ends as dropped."""
    lab.setup([json_reply()])

    async def scenario() -> None:
        client = lab.client()
        await lab.post(client)
        response = await lab.open(client)
        del response
        gc.collect()
        lab.runtime.stats()
        assert (lab.last().result, lab.last().ending) == (CacheResult.HIT, Ending.DROPPED)

    lab.run(scenario)


UNTYPED = {
    # content type, body: verdict, ending
    "SSE as text": ("text/plain", b"".join(CHAT_FRAMES), "success", Ending.COMPLETE),
    "SSE without a type": ("", b"".join(CHAT_FRAMES), "success", Ending.COMPLETE),
    "lines of JSON": ("application/x-ndjson", b'{"a":1}\n{"b":2}\n', "success", Ending.COMPLETE),
    "a page": ("text/html", b"<html>", "success", Ending.COMPLETE),
    "cut JSON": ("application/json; charset=utf-8", b'{"a":', "failure", Ending.TRUNCATED),
    "cut JSON of a kind": ("application/vnd.api+json", b'{"a":', "failure", Ending.TRUNCATED),
    "an empty stream": ("text/event-stream", b"", "failure", Ending.TRUNCATED),
}


@pytest.mark.parametrize("name", list(UNTYPED))
def test_only_a_body_of_a_known_type_can_be_seen_to_be_cut(lab: Lab, name: str) -> None:
    """What is neither JSON nor a stream of events by its own word is not kept, and not held against the
    provider: its circuit must not open over a gateway's odd content type."""
    kind, body, verdict, ending = UNTYPED[name]
    lab.setup([Scripted(200, {"content-type": kind} if kind else {}, [body] if body else [])])

    async def scenario() -> None:
        assert (await lab.post(lab.client(), body=ASK)).content == body
        assert (lab.attempt.verdict, lab.attempt.stored, lab.last().ending) == (verdict, False, ending)

    lab.run(scenario)


def test_a_204_is_no_failure(lab: Lab) -> None:
    """An answer without a body is not a cut one."""
    lab.setup([Scripted(204)])

    async def scenario() -> None:
        await lab.post(lab.client())
        assert (lab.attempt.verdict, lab.attempt.stored) == ("success", False)

    lab.run(scenario)


def reader_under(response: Any) -> Any:
    """Underlay's reader under the client's own wrapper of the stream."""
    stream = response.stream
    while not hasattr(stream, "_reader"):
        stream = stream._stream
    return stream._reader


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_body_that_is_closed_under_its_reader_does_not_look_finished(family: str) -> None:
    """One thread closes the response that another is reading (a stop button): the reader gets the family's
    read error and not an end, upstream is closed, and nothing is kept."""
    started, go = threading.Event(), threading.Event()
    lab = Lab(f"sync-{family}").setup([])
    lab.setup([stream_reply([CHAT_FRAMES[0], started.set, lambda: go.wait(10), *CHAT_FRAMES[1:]])])
    with lab.client() as client:
        response = client.send(client.build_request("POST", CHAT_URL, json=ASK, headers=KEY), stream=True)
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(lambda: list(response.iter_raw()))
            assert started.wait(10)
            response.close()
            go.set()
            with pytest.raises(lab.module.ReadError):
                reading.result(10)
    assert (lab.script.closed, lab.attempt.stored, lab.attempt.verdict) == (1, False, "nothing")
    assert [event.ending for event in lab.recorder.calls[0].of(CallEnded)] == [Ending.CLOSED]


@pytest.mark.parametrize("first_reads", [0, 1, len(CHAT_FRAMES)])
def test_a_second_call_reads_the_body_of_the_first(lab: Lab, first_reads: int) -> None:
    """An identical call becomes a reader of the first one's body: it pulls through ports of its own, both get
    every frame, and upstream is asked, pulled and closed once."""
    lab.setup([stream_reply()], llm_cache={"enabled": False})

    async def scenario() -> None:
        client = lab.client()
        first = await lab.open(client, body=ASK)
        ahead = lab.frames(first)
        got = [frame for _ in range(first_reads) if (frame := await ahead.next()) is not None]
        second = await lab.open(client, body=ASK)
        assert (second.status_code, second.headers["content-type"]) == (200, first.headers["content-type"])
        assert await lab.frames(second).rest() == list(CHAT_FRAMES)
        assert got + await ahead.rest() == list(CHAT_FRAMES)
        for response in (first, second):
            await lab.close(response)

    lab.run(scenario)
    assert (lab.upstream, lab.script.opened, lab.script.closed, lab.script.read) == (
        1,
        1,
        1,
        len(CHAT_FRAMES),
    )
    assert [len(call.of(AttemptEnded)) for call in lab.recorder.calls] == [1, 0]
    assert [call.of(CallEnded)[0].ending for call in lab.recorder.calls] == [Ending.COMPLETE] * 2
    assert lab.faults == {}


def test_an_error_of_the_close_does_not_hide_that_of_the_body(lab: Lab) -> None:
    """A body that fails and whose close fails too: the caller is given the first error; where only the close
    fails, the caller is given that, as by a bare client."""
    read, close = lab.module.ReadError("read"), lab.module.CloseError("close")

    async def outcome(frames: list[Any]) -> BaseException | None:
        class Failing(type(spent_once(lab, []))):  # type: ignore[misc]
            def __init__(self) -> None:
                self._left = iter(frames)

            def following(self) -> Any:
                frame = next(self._left, None)
                if isinstance(frame, BaseException):
                    raise frame
                return frame

            def __iter__(self) -> Any:
                while (frame := self.following()) is not None:
                    yield frame

            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> Any:
                if (frame := self.following()) is None:
                    raise StopAsyncIteration
                return frame

            def close(self) -> None:
                raise close

            async def aclose(self) -> None:
                raise close

        client = lab.client(
            lab.transport(lambda _: lab.module.Response(200, headers=JSON_TYPE, stream=Failing()))
        )
        try:
            await lab.post(client)
        except BaseException as error:
            return error
        return None

    lab.setup([])

    async def scenario() -> None:
        assert await outcome([dumped(CHAT)[:9], read]) is read
        assert lab.last().error_type == "ReadError"
        assert await outcome([dumped(CHAT)]) is close

    lab.run(scenario)


def test_a_follower_knows_what_it_saved_while_another_closes_the_books(lab: Lab) -> None:
    """Clients that stop at the terminal event leave while somebody else still ends the body: what the answer
    cost was said by then."""
    lab.setup([stream_reply()], llm_cache={"enabled": False})

    async def scenario() -> None:
        client = lab.client()
        responses = [await lab.open(client, body=ASK) for _ in range(2)]
        readers = [reader_under(response) for response in responses]
        for _ in CHAT_FRAMES:
            for reader in readers:
                await reader.read()
        assert readers[1]._body.claim(readers[1]._number)  # as whoever is about to end it does
        await lab.close(responses[1])
        await lab.close(responses[0])
        (ended,) = lab.recorder.calls[1].of(CallEnded)
        assert (ended.result, ended.ending) == ("coalesced", "complete")
        assert ended.saved_usage is not None
        assert ended.saved_usd

    lab.run(scenario)
