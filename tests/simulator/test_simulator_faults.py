"""Each fault on demand, as the SDKs and plain clients meet it."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

import anthropic
import anyio
import httpx
import openai
import pytest

from underlay.simulator import ConnectionCut, Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGES: list[Any] = [{"role": "user", "content": "x"}]
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES}
CLAUDE: dict[str, Any] = {"model": "claude", "messages": MESSAGES, "max_tokens": 50}


def post(
    sim: Simulator, fault: str, *, stream: bool = False, path: str = "/v1/chat/completions", **headers: str
) -> Any:
    """One POST with plain httpx under a fault."""
    body = CLAUDE if path.endswith("messages") else CHAT
    sent = {"x-sim-fault": fault, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(f"{sim.url}{path}", json={**body, "stream": stream}, headers=sent, timeout=5)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
        (401, openai.AuthenticationError),
        (418, openai.APIStatusError),
    ],
)
def test_openai_status(
    gpt: openai.OpenAI, status: int, error: type[openai.APIStatusError], stream: bool
) -> None:
    """An ordered status is the SDK's own error for it, streamed or not."""
    with pytest.raises(error) as caught:
        gpt.chat.completions.create(**CHAT, stream=stream, extra_headers={"x-sim-fault": str(status)})
    assert caught.value.status_code == status
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error"), (503, "api_error")],
)
def test_anthropic_status(claude: anthropic.Anthropic, status: int, kind: str) -> None:
    """An ordered status has Anthropic's error type for it."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(**CLAUDE, extra_headers={"x-sim-fault": str(status)})
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert body["error"]["type"] == kind


def test_retry_after(sim: Simulator) -> None:
    """A 429 says when to come back, in seconds, and that nothing remains."""
    reply = post(sim, "429;retry_after=7")
    assert reply.headers["retry-after"] == "7"
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert post(sim, "429").headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
def test_drop(gpt: openai.OpenAI, stream: bool) -> None:
    """A dropped connection is a connection error without a reply."""
    with pytest.raises(openai.APIConnectionError):
        gpt.chat.completions.create(**CHAT, stream=stream, extra_headers={"x-sim-fault": "drop"})


def test_cut_json(sim: Simulator) -> None:
    """A cut JSON reply announces its length and breaks at half of it."""
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        post(sim, "cut")
    assert sim.counts().total.status(200) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_cut_stream(sim: Simulator, path: str) -> None:
    """A cut stream delivers exactly the events before the cut and then breaks."""
    body = {**(CLAUDE if path.endswith("messages") else CHAT), "stream": True}
    got = b""

    def read() -> None:
        nonlocal got
        with httpx.stream(
            "POST", f"{sim.url}{path}", json=body, headers={"x-sim-fault": "cut;after=3"}
        ) as reply:
            for part in reply.iter_raw():
                got += part

    with pytest.raises(httpx.RemoteProtocolError):
        read()
    assert got.count(b"\n\n") == 3


def test_cut_stream_at_the_sdk(gpt: openai.OpenAI) -> None:
    """The SDK turns a cut stream into its connection error."""
    with (
        pytest.raises(openai.APIConnectionError),
        gpt.chat.completions.create(**CHAT, stream=True, extra_headers={"x-sim-fault": "cut"}) as stream,
    ):
        list(stream)


@pytest.mark.parametrize(
    ("path", "terminal"), [("/v1/chat/completions", "[DONE]"), ("/v1/messages", "message_stop")]
)
def test_clean_eof_stream(sim: Simulator, path: str, terminal: str) -> None:
    """A stream may end in proper framing without its terminal event, however late the end is ordered."""
    for fault in ("clean_eof", "clean_eof;after=9999"):
        text = post(sim, fault, stream=True, path=path).text
        assert text.endswith("\n\n")
        assert terminal not in text
    assert terminal in post(sim, "", stream=True, path=path).text


def test_clean_eof_json(sim: Simulator) -> None:
    """A JSON reply may end in proper framing and not parse."""
    reply = post(sim, "clean_eof")
    assert reply.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json()


def test_error_event_openai(gpt: openai.OpenAI) -> None:
    """An error object within a 200 stream raises at the SDK after the events before it."""
    ask = gpt.chat.completions.create
    with ask(**CHAT, stream=True, extra_headers={"x-sim-fault": "error_event;after=4"}) as stream:
        got = [next(stream) for _ in range(4)]
        with pytest.raises(openai.APIError, match="server had an error"):
            next(stream)
    assert len(got) == 4


def test_error_event_anthropic(claude: anthropic.Anthropic) -> None:
    """`event: error` within a 200 stream is Anthropic's overloaded_error."""
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        claude.messages.create(**CLAUDE, stream=True, extra_headers={"x-sim-fault": "error_event"}) as stream,
    ):
        list(stream)
    body: Any = caught.value.body
    assert body["error"]["type"] == "overloaded_error"


def test_error_event_responses(gpt: openai.OpenAI) -> None:
    """The responses API ends a failed stream with the numbered event `error`."""
    ask = gpt.responses.create
    with ask(
        model="m", input="x", stream=True, extra_headers={"x-sim-fault": "error_event;after=2"}
    ) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["response.created", "response.in_progress", "error"]
    assert events[-1].sequence_number == 2


def test_error_in_a_json_200(sim: Simulator) -> None:
    """A JSON reply under `error_event` is a 200 whose body is the error, as some gateways send it."""
    reply = post(sim, "error_event")
    assert reply.status_code == 200
    assert set(reply.json()) == {"error"}


@pytest.mark.parametrize(
    ("fault", "stream"), [("hang", False), ("hang;after=2", True), ("hang;after=0", True)]
)
def test_hang(sim: Simulator, fault: str, stream: bool) -> None:
    """A hanging call ends when its client goes away, and is counted as aborted."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{sim.url}/v1/chat/completions",
            json={**CHAT, "stream": stream},
            headers={"x-sim-fault": fault},
            timeout=0.2,
        )
    counts = sim.wait_until(lambda counts: counts.total.active == 0)
    assert counts.total.aborted == 1
    assert counts.total.status(200) == (1 if stream else 0)


def test_slow(sim: Simulator) -> None:
    """`slow` delays the reply by its seconds, which the processing header shows."""
    reply = post(sim, "slow;seconds=0.05")
    assert reply.status_code == 200
    assert int(reply.headers["openai-processing-ms"]) >= 50


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_encoding(sim: Simulator, encoding: str, stream: bool) -> None:
    """An encoded body decodes to the plain one, and only who accepts the encoding gets it."""
    plain = post(sim, "", stream=stream, accept_encoding="identity")
    coded = post(sim, encoding, stream=stream, accept_encoding=f"deflate, {encoding};q=0.9")
    refused = post(sim, encoding, stream=stream, accept_encoding=f"identity, {encoding};q=0")
    assert coded.headers["content-encoding"] == encoding
    assert "content-encoding" not in refused.headers
    assert len(coded.text) == len(plain.text) == len(refused.text)


def test_encoding_is_flushed_per_event(sim: Simulator) -> None:
    """Every event of a gzip stream can be decoded when it arrives, also when the stream then breaks."""
    decoder = zlib.decompressobj(wbits=31)
    text = b""

    def read() -> None:
        nonlocal text
        headers = {"x-sim-fault": "gzip, cut;after=3", "accept-encoding": "gzip"}
        body = {**CHAT, "stream": True}
        with httpx.stream("POST", f"{sim.url}/v1/chat/completions", json=body, headers=headers) as reply:
            for part in reply.iter_raw():
                text += decoder.decompress(part)

    with pytest.raises(httpx.RemoteProtocolError):
        read()
    assert text.count(b"\n\n") == 3


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["cut", "drop"])
async def test_cut_in_process(fault: str) -> None:
    """In process, on asyncio and trio, a broken connection is a ConnectionCut."""
    async with in_process(Simulator()) as client:
        with pytest.raises(ConnectionCut):
            await client.post("/v1/chat/completions", json=CHAT, headers={"x-sim-fault": fault})


@pytest.mark.anyio
async def test_hang_in_process() -> None:
    """In process, a hanging call ends with its caller's cancel and is counted as aborted."""
    simulator = Simulator()
    async with in_process(simulator) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.post("/v1/chat/completions", json=CHAT, headers={"x-sim-fault": "hang"})
    assert scope.cancelled_caught
    assert simulator.counts().total.aborted == 1
    assert simulator.counts().total.active == 0


def in_process(simulator: Simulator) -> httpx.AsyncClient:
    """An asynchronous client over the ASGI application."""
    app: Callable[..., Any] = simulator.app
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sim")
