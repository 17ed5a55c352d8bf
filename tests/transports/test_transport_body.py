"""Bodies read in pieces, left early, cut, dropped: what the reader sees, what the books say, what is kept."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from transport_lab import (
    CHAT,
    CHAT_ASK,
    CHAT_FRAMES,
    DIALECTS,
    JSON_TYPE,
    Lab,
    dumped,
    events,
    json_reply,
    stream_reply,
)

from underlay.telemetry.attributes import Ending
from underlay.telemetry.events import AttemptEnded, CallEnded
from underlay.testing import Scripted

# httpx leaves a generator of its own behind when a body is left early, which trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")

ASK = {**CHAT_ASK, "stream": True}


def test_the_first_frame_arrives_before_the_second_is_pulled(lab: Lab) -> None:
    """Each frame is handed on as it comes: nothing is read ahead."""
    lab.setup([stream_reply()])

    async def scenario() -> None:
        response = await lab.open(lab.client(), body=ASK)
        assert lab.script.read == 0
        frames = lab.frames(response)
        for number, wanted in enumerate(CHAT_FRAMES, 1):
            assert await frames.next() == wanted
            assert lab.script.read == number
        assert await frames.next() is None
        await lab.close(response)

    lab.run(scenario)


def test_times_of_a_stream_are_those_of_its_reader(lab: Lab) -> None:
    """First chunk, mean interval, duration and count are measured where the caller reads."""
    steps: list[Any] = []
    for frame in CHAT_FRAMES:
        steps += [lambda: lab.clock.advance(2), frame]
    lab.setup([stream_reply(steps)])

    async def scenario() -> None:
        await lab.post(lab.client(), body=ASK)

    lab.run(scenario)
    ended: CallEnded = lab.last()
    assert (ended.first_chunk, ended.chunk_interval, ended.chunks) == (2.0, 2.0, len(CHAT_FRAMES))
    assert ended.duration == lab.attempt.duration == 2.0 * len(CHAT_FRAMES)


@pytest.mark.parametrize("frames_read", [0, 1, 2])
def test_a_body_left_early_is_closed_once_and_not_kept(lab: Lab, frames_read: int) -> None:
    """Closing a half-read stream closes upstream exactly once; the answer is not stored and nobody is
    blamed."""
    lab.setup([stream_reply()])

    async def scenario() -> None:
        client = lab.client()
        response = await lab.open(client, body=ASK)
        frames = lab.frames(response)
        for _ in range(frames_read):
            await frames.next()
        await lab.close(response)
        await lab.close(response)
        assert lab.script.closed == 1
        assert lab.script.read == frames_read
        assert (lab.attempt.stored, lab.attempt.verdict) == (False, "nothing")
        assert [event.ending for event in lab.recorder.calls[0].of(CallEnded)] == [Ending.CLOSED]
        await frames.close()
        await lab.post(client, body=ASK)

    lab.run(scenario)
    assert lab.upstream == 2
    assert lab.faults == {}


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
def test_a_reader_that_stops_at_the_terminal_event_had_the_whole_answer(lab: Lab, dialect: str) -> None:
    """The SDKs stop reading at the terminal event: the answer is complete and stored."""
    url, ask, _, wanted = DIALECTS[dialect]
    lab.setup([stream_reply(wanted)])

    async def scenario() -> None:
        client = lab.client()
        response = await lab.open(client, url, {**ask, "stream": True})
        frames = lab.frames(response)
        for _ in wanted:
            await frames.next()
        await lab.close(response)
        assert (lab.attempt.stored, lab.attempt.verdict, lab.last().ending) == (
            True,
            "success",
            Ending.COMPLETE,
        )
        again = await lab.post(client, url, {**ask, "stream": True})
        assert again.content == b"".join(wanted)
        await frames.close()

    lab.run(scenario)
    assert (lab.upstream, lab.script.closed) == (1, 1)


def test_a_body_that_is_dropped_has_its_books_closed_by_the_next_caller(lab: Lab) -> None:
    """A response that is garbage-collected without a close ends as dropped, at the time it was dropped."""
    lab.setup([stream_reply(), json_reply()])

    async def scenario() -> None:
        client = lab.client()
        response = await lab.open(client, body=ASK)
        lab.clock.advance(3)
        if lab.mode == "trio":
            response.stream = None  # trio has finalisers of its own for generators; the stream is what counts
        del response
        gc.collect()
        lab.clock.advance(100)
        assert lab.recorder.calls[0].of(AttemptEnded) == []
        await lab.post(client)
        (attempt,), (call,) = lab.recorder.calls[0].of(AttemptEnded), lab.recorder.calls[0].of(CallEnded)
        assert (attempt.verdict, attempt.stored, attempt.duration) == ("nothing", False, 3.0)
        assert (call.ending, call.duration) == (Ending.DROPPED, 3.0)

    lab.run(scenario)
    assert lab.faults == {}


def test_a_dropped_body_claims_no_entry(lab: Lab) -> None:
    """Dropped after its terminal event, an answer was whole but is not in the store, and the books say so."""
    lab.setup([stream_reply()])

    async def scenario() -> None:
        client = lab.client()
        response = await lab.open(client, body=ASK)
        frames = lab.frames(response)
        for _ in CHAT_FRAMES:
            await frames.next()
        # Generators of the client keep a hold of the body, so what is dropped here is the reader itself.
        lab.runtime.engine.state.dropped.append((_reader(response.stream), lab.clock.now()))
        lab.runtime.stats()
        assert (lab.runtime.cache.size, lab.attempt.stored, lab.attempt.store_reason) == (0, False, "dropped")
        assert lab.attempt.verdict == "success"
        await lab.close(response)
        await frames.close()

    lab.run(scenario)


def _reader(stream: Any) -> Any:
    """Underlay's reader under the client's own wrapper of the stream."""
    while not hasattr(stream, "_reader"):
        stream = stream._stream
    return stream._reader


ERROR_EVENT = b'data: {"error": {"type": "server_error", "message": "m", "code": null}}\n\n'
OVERLOADED = events([{"type": "error", "error": {"type": "overloaded_error", "message": "m"}}])
LIMITED = events([{"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}])
READ_ERROR = "read error"

ENDS: dict[str, tuple[str, Any, str, bool, Ending, str]] = {
    # name: dialect, reply, verdict, stored, ending, error type
    "whole stream": ("chat", stream_reply(), "success", True, Ending.COMPLETE, ""),
    "no terminal event": ("chat", stream_reply(CHAT_FRAMES[:2]), "failure", False, Ending.TRUNCATED, "truncated"),
    "empty stream": ("chat", stream_reply([]), "failure", False, Ending.TRUNCATED, "truncated"),
    "read error": ("chat", stream_reply([*CHAT_FRAMES[:2], READ_ERROR]), "failure", False, Ending.FAILED, "ReadError"),
    "error event": ("chat", stream_reply([*CHAT_FRAMES[:2], ERROR_EVENT]), "failure", False, Ending.COMPLETE, "server_error"),
    "overloaded event": ("messages", stream_reply([*DIALECTS["messages"][3][:2], OVERLOADED]), "failure", False, Ending.COMPLETE, "overloaded_error"),
    "rate limit event": ("messages", stream_reply([LIMITED]), "nothing", False, Ending.COMPLETE, "rate_limit_error"),
    "no message_stop": ("messages", stream_reply(DIALECTS["messages"][3][:3]), "failure", False, Ending.TRUNCATED, "truncated"),
    "no response.completed": ("responses", stream_reply(DIALECTS["responses"][3][:-1]), "failure", False, Ending.TRUNCATED, "truncated"),
    "half a JSON": ("chat", Scripted(200, JSON_TYPE, [dumped(CHAT)[:-9]]), "failure", False, Ending.TRUNCATED, "truncated"),
    "JSON in pieces": ("chat", Scripted(200, JSON_TYPE, [dumped(CHAT)[:50], dumped(CHAT)[50:]]), "success", True, Ending.COMPLETE, ""),
    "JSON read error": ("chat", Scripted(200, JSON_TYPE, [dumped(CHAT)[:50], READ_ERROR]), "failure", False, Ending.FAILED, "ReadError"),
    "500": ("chat", json_reply({"error": {"type": "server_error"}}, 500), "failure", False, Ending.COMPLETE, "server_error"),
    "503 of a proxy": ("chat", Scripted(503, {"content-type": "text/html"}, [b"<html>"]), "failure", False, Ending.COMPLETE, "503"),
    "529": ("messages", json_reply({"type": "error", "error": {"type": "overloaded_error"}}, 529), "failure", False, Ending.COMPLETE, "overloaded_error"),
    "501": ("chat", json_reply({}, 501), "nothing", False, Ending.COMPLETE, "501"),
    "400": ("chat", json_reply({"error": {"type": "invalid_request_error"}}, 400), "nothing", False, Ending.COMPLETE, "invalid_request_error"),
    "401": ("chat", json_reply({"error": {"type": "authentication_error"}}, 401), "nothing", False, Ending.COMPLETE, "authentication_error"),
    "429": ("chat", json_reply({"error": {"type": "rate_limit_exceeded"}}, 429), "nothing", False, Ending.COMPLETE, "rate_limit_exceeded"),
    "202": ("chat", json_reply(CHAT, 202), "success", False, Ending.COMPLETE, ""),
    "unknown encoding": ("chat", Scripted(200, {**JSON_TYPE, "content-encoding": "compress"}, [b"\x1f\x9d"]), "success", False, Ending.COMPLETE, ""),
    "broken gzip": ("chat", Scripted(200, {**JSON_TYPE, "content-encoding": "gzip"}, [b"no gzip"]), "success", False, Ending.COMPLETE, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ENDS))
def test_how_a_body_ended_decides_what_is_kept_and_who_is_blamed(lab: Lab, name: str) -> None:
    """One table of endings: verdict, stored or not, how it ended, and the error's name. The reader gets the
    frames, and the error, of a bare client."""
    dialect, reply, verdict, stored, ending, error_type = ENDS[name]
    url, ask, _, _ = DIALECTS[dialect]
    frames = [lab.module.ReadError("cut") if frame == READ_ERROR else frame for frame in reply.frames]
    scripted = Scripted(reply.status, reply.headers, frames)
    lab.setup([scripted])

    async def scenario() -> None:
        client = lab.client()
        response = await lab.open(
            client, url, {**ask, "stream": reply.headers["content-type"] != "application/json"}
        )
        assert response.status_code == reply.status
        body, got, error = lab.frames(response), [], None
        try:
            while (frame := await body.next()) is not None:
                got.append(frame)
        except lab.module.ReadError as caught:
            error = caught
        await lab.close(response)
        assert got == [frame for frame in frames if isinstance(frame, bytes)]
        assert error is next((frame for frame in frames if not isinstance(frame, bytes)), None)
        attempt = lab.attempt
        assert (attempt.verdict, attempt.stored, attempt.error_type) == (verdict, stored, error_type)
        ended = lab.last()
        assert (ended.ending, ended.error_type, ended.status) == (ending, error_type, reply.status)
        assert lab.script.closed == 1
        assert lab.runtime.cache.size == int(stored)
        await lab.close(
            await lab.open(
                client, url, {**ask, "stream": reply.headers["content-type"] != "application/json"}
            )
        )
        assert lab.upstream == 2 - stored

    lab.run(scenario)
    assert lab.faults == {}
