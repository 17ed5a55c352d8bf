"""What leaves and what comes back when nothing applies: bit for bit, and the very same objects."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import pytest
from transport_lab import CHAT, CHAT_ASK, CHAT_URL, JSON_TYPE, KEY, Lab, dumped, json_reply

from underlay.telemetry.events import AttemptEnded
from underlay.testing import Scripted

BODY = (
    b'{ "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}],\n "temperature":1.0e0, "model":"gpt-4o" }'
)


def test_a_miss_sends_the_callers_own_request(lab: Lab) -> None:
    """The inner transport is given the same request object: method, URL, headers in order and spelling, body
    and extensions as the caller made them."""
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append(
            (
                request,
                request.method,
                str(request.url),
                list(request.headers.raw),
                request.stream,
                dict(request.extensions),
            )
        )
        return lab.inner(lab.script.transport(lab.family, lab.kind), request)

    lab.setup([json_reply()])

    async def scenario() -> None:
        client = lab.client(lab.transport(handle))
        headers = [
            ("X-B", "1"),
            ("x-a", "2"),
            ("X-B", "3"),
            ("Authorization", "Bearer k"),
            ("Content-Type", "application/json"),
        ]
        request = client.build_request(
            "POST", CHAT_URL + "?a=1&b=%20", content=BODY, headers=headers, extensions={"trace": print}
        )
        before = list(request.headers.raw)
        await lab.send(client, request)
        ((got, method, url, raw, _, extensions),) = seen
        assert got is request
        assert (method, url, raw) == ("POST", CHAT_URL + "?a=1&b=%20", before)
        assert [name for name, _ in raw if name.lower() in (b"x-a", b"x-b")] == [b"X-B", b"x-a", b"X-B"]
        assert extensions["trace"] is print
        assert lab.script.sent[0].body == BODY

    lab.run(scenario)
    assert lab.faults == {}


UNRELATED = [
    ("GET", CHAT_URL, b"", {}),
    ("PUT", CHAT_URL, BODY, JSON_TYPE),
    ("POST", "https://api.openai.com/v1/files", BODY, JSON_TYPE),
    ("POST", "https://example.org/api/chat", BODY, JSON_TYPE),
    ("POST", "https://example.org/v1/chat/completions", b'{"model": "m"}', JSON_TYPE),
    ("POST", "https://example.org/v1/chat/completions", b"[1]", JSON_TYPE),
    ("POST", "https://example.org/v1/chat/completions", BODY, {"content-type": "text/plain"}),
    ("POST", CHAT_URL, b"not json", JSON_TYPE),
    ("POST", CHAT_URL, b"", JSON_TYPE),
    ("POST", CHAT_URL, b'{"model": "m", "model": "m", ', JSON_TYPE),
    ("POST", CHAT_URL, b"\xff\xfe", JSON_TYPE),
    ("POST", CHAT_URL, b"[" * 100_000, JSON_TYPE),
]


@pytest.mark.parametrize("number", range(len(UNRELATED)))
def test_other_traffic_gets_the_very_same_response(lab: Lab, number: int) -> None:
    """A request that is not ours leaves as it is, and the caller's client is given the inner transport's own
    response object with its own stream. Nothing is recorded and nothing counts as a fault."""
    method, url, body, headers = UNRELATED[number]
    made: list[Any] = []

    def handle(request: Any) -> Any:
        response = lab.module.Response(200, headers={"x": "1"}, content=b"plain")
        made.append((request, response, response.stream))
        return response

    lab.setup([])

    async def scenario() -> None:
        transport = lab.wrap(lab.transport(handle))
        request = lab.module.Request(method, url, content=body, headers=headers)
        got = await lab._await(lab.inner(transport, request))
        ((sent, response, stream),) = made
        assert sent is request
        assert got is response
        assert got.stream is stream

    lab.run(scenario)
    assert lab.recorder.calls == []
    assert lab.faults == {}


def test_a_body_still_to_be_produced_is_never_read(lab: Lab) -> None:
    """A streaming or multipart request body is passed on unread, even to a known path."""
    lab.setup([json_reply()])
    produced: list[int] = []

    def parts() -> Any:
        produced.append(1)
        yield BODY

    async def aparts() -> Any:
        produced.append(1)
        yield BODY

    async def scenario() -> None:
        seen: list[Any] = []

        def handle(request: Any) -> Any:
            seen.append((len(produced), hasattr(request, "_content")))
            return lab.inner(lab.script.transport(lab.family, lab.kind), request)

        client = lab.client(lab.transport(handle))
        content = parts() if lab.kind == "sync" else aparts()
        await lab.send(
            client, client.build_request("POST", CHAT_URL, content=content, headers={**KEY, **JSON_TYPE})
        )
        assert seen == [(0, False)]
        assert lab.script.sent[0].body == BODY
        files = {"file": ("a.jsonl", b"{}")}
        await lab.send(
            client, client.build_request("POST", CHAT_URL, data={"model": "m"}, files=files, headers=KEY)
        )
        assert seen[1] == (1, False)
        assert b"a.jsonl" in lab.script.sent[1].body

    lab.run(scenario)
    assert lab.recorder.calls == []


def test_control_headers_never_leave(lab: Lab) -> None:
    """Headers that begin with `underlay-` are taken off before the request leaves; everything else of it is
    as the caller made it."""
    lab.setup([json_reply()])

    async def scenario() -> None:
        client = lab.client()
        trace = object()
        headers = [
            ("X-B", "1"),
            ("Underlay-Deadline", "3"),
            ("x-a", "2"),
            ("UNDERLAY-X", "y"),
            ("Authorization", "k"),
            ("content-type", "application/json"),
        ]
        request = client.build_request(
            "POST", CHAT_URL, content=BODY, headers=headers, extensions={"trace": trace}
        )
        wanted = [
            (name, value) for name, value in request.headers.raw if not name.lower().startswith(b"underlay-")
        ]
        await lab.send(client, request)
        assert list(lab.script.sent[0].headers) == wanted
        assert lab.script.sent[0].body == BODY
        plain = client.build_request(
            "POST",
            CHAT_URL,
            content=BODY,
            headers=[h for h in headers if not h[0].lower().startswith("underlay-")],
        )
        await lab.send(client, plain)

    lab.run(scenario)
    assert lab.upstream == 1  # and they are not in the key


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}],"seed":NaN}',
        b'{"model":"gpt-4o","model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}',
    ],
)
def test_a_body_without_one_meaning_is_sent_and_never_kept(lab: Lab, body: bytes) -> None:
    """NaN and repeated names have no canonical form: each such call is sent, and its books are kept."""
    lab.setup([json_reply()])

    async def scenario() -> None:
        client = lab.client()
        for _ in range(2):
            await lab.send(
                client, client.build_request("POST", CHAT_URL, content=body, headers={**KEY, **JSON_TYPE})
            )
            assert (lab.attempt.verdict, lab.attempt.stored) == ("success", False)
            assert lab.attempt.store_reason in ("not_a_number", "duplicate_names")

    lab.run(scenario)
    assert [sent.body for sent in lab.script.sent] == [body, body]
    assert lab.faults == {}


def test_a_gateway_of_any_name_is_recognised_by_path_and_body(lab: Lab) -> None:
    """An unknown host that speaks the API's path and body is cached; with `recognise: known` it is not."""
    for setting, sent in (("any", 1), ("known", 2)):
        lab.setup([json_reply()], recognise=setting)

        async def scenario() -> None:
            client = lab.client()
            for _ in range(2):
                await lab.post(client, "http://gateway.internal:8080/llm/v1/chat/completions")

        lab.run(scenario)
        assert lab.upstream == sent


def test_a_reply_from_memory_is_recorded_and_replayed(lab: Lab) -> None:
    """A transport that answers with a response that is read already (a mock) is covered like any other."""
    lab.setup([])
    count: list[int] = []

    def handle(request: Any) -> Any:
        count.append(1)
        return lab.module.Response(200, json=CHAT, headers={"x-own": "1"}, extensions={"own": True})

    async def scenario() -> None:
        client = lab.client(lab.module.MockTransport(handle))
        first = await lab.post(client)
        assert (first.json(), first.headers["x-own"], first.extensions["own"]) == (CHAT, "1", True)
        assert lab.attempt.usage.input_tokens == CHAT["usage"]["prompt_tokens"]
        second = await lab.post(client)
        assert second.content == first.content

    lab.run(scenario)
    assert len(count) == 1
    assert len(lab.recorder.calls[0].of(AttemptEnded)) == 1


def test_the_response_of_a_miss_is_the_inner_transports_own(lab: Lab) -> None:
    """On a miss the caller gets the inner response with its extensions, reason and headers; only the stream
    under it is ours."""
    made: list[Any] = []
    lab.setup([json_reply()])

    async def scenario() -> None:
        transport = lab.script.transport(lab.family, lab.kind)

        def handle(request: Any) -> Any:
            async def awaited() -> Any:
                return keep(await lab.inner(transport, request))

            def keep(response: Any) -> Any:
                response.extensions["reason_phrase"] = b"Fine"
                made.append(response)
                return response

            return keep(lab.inner(transport, request)) if lab.kind == "sync" else awaited()

        client = lab.client(lab.transport(handle))
        got = await lab.post(client)
        assert got is made[0]
        assert (got.reason_phrase, got.num_bytes_downloaded) == ("Fine", len(dumped(CHAT)))

    lab.run(scenario)


def test_the_callers_context_is_seen_inside(lab: Lab) -> None:
    """Context variables that the caller set are visible in the app's own transport."""
    variable: ContextVar[str] = ContextVar("variable", default="nobody")
    seen: list[str] = []
    lab.setup([])

    def handle(request: Any) -> Any:
        seen.append(variable.get())
        return lab.module.Response(200, json=CHAT)

    async def scenario() -> None:
        client = lab.client(lab.transport(handle))
        token = variable.set("caller")
        await lab.post(client)
        variable.reset(token)

    lab.run(scenario)
    assert seen == ["caller"]


def test_a_transport_may_ask_through_a_client_of_its_own(lab: Lab) -> None:
    """A transport that forwards through an inner client under the same runtime passes the seam twice: the inner
    request passes straight through, and one call, one attempt and one request are counted."""
    lab.setup([json_reply()])

    async def scenario() -> None:
        inner = lab.client()

        def handle(request: Any) -> Any:
            again = inner.build_request("POST", CHAT_URL, content=request.content, headers=request.headers)
            return inner.send(again, stream=True)

        outer = lab.client(lab.transport(handle))
        for _ in range(2):
            assert (await lab.post(outer)).json() == CHAT
        assert lab.upstream == 1
        await lab.post(inner, body={**CHAT_ASK, "seed": 1})  # the seam is closed again afterwards

    lab.run(scenario)
    assert len(lab.recorder.calls) == 3
    assert lab.faults == {}


def test_an_empty_answer_passes(lab: Lab) -> None:
    """A 200 without a body reaches the caller as it is and is not kept."""
    lab.setup([Scripted(200, {**JSON_TYPE, "content-length": "0"}, [])])

    async def scenario() -> None:
        assert (await lab.post(lab.client())).content == b""
        assert (lab.attempt.stored, lab.attempt.verdict) == (False, "failure")

    lab.run(scenario)
