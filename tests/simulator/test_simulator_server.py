"""The simulator's books, its options, and the ways to run it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import httpx
import pytest

from underlay.errors import MissingExtraError, SettingsError, UnderlayError
from underlay.simulator import Fault, Latency, Simulator, SimulatorOptions, serve

MESSAGES: list[Any] = [{"role": "user", "content": "x"}]
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES}


def test_counts(sim: Simulator) -> None:
    """The counts are those of the calls made, by path and model, in Python and over HTTP alike."""
    with httpx.Client(base_url=f"{sim.url}/v1") as client:
        chat = client.post("/chat/completions", json=CHAT)
        client.post("/chat/completions", json={**CHAT, "stream": True})
        client.post("/chat/completions", json=CHAT, headers={"x-sim-fault": "500"})
        client.post("/embeddings", json={"model": "e", "input": ["a", "b", "c"]})
        client.post("/chat/completions", content=b"{")
        shown = client.get(f"{sim.url}/_sim/counts").json()
    counts = sim.wait_until(lambda counts: counts.total.active == 0)
    assert counts.total.requests == 5
    gpt = counts.of("chat", "gpt-4o")
    usage = chat.json()["usage"]
    assert (gpt.requests, gpt.streams, dict(gpt.statuses)) == (3, 1, {200: 2, 500: 1})
    assert gpt.input_tokens == 2 * usage["prompt_tokens"]
    assert gpt.output_tokens == 2 * usage["completion_tokens"]
    assert counts.of("embeddings").inputs == 3
    assert counts.total.status(400) == 1
    assert counts.total.aborted == 0
    assert counts.total.bytes_out > len(chat.content)
    assert shown["schema"] == 1
    assert shown["total"]["requests"] == 5
    assert shown["total"]["statuses"] == {"200": 3, "400": 1, "500": 1}
    assert {(row["path"], row["model"]) for row in shown["routes"]} == set(counts.routes)


def test_counts_under_threads(sim: Simulator) -> None:
    """No call is lost or counted twice when many threads call at once."""

    def call() -> None:
        with httpx.Client(base_url=sim.url) as client:
            for _ in range(10):
                client.post("/v1/embeddings", json={"model": "e", "input": "x", "dimensions": 4})

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sim.counts().of("embeddings", "e").status(200) == 80


def test_abandoned_stream_is_aborted(sim: Simulator) -> None:
    """A client that leaves in the middle of a stream is counted as aborted."""
    body, headers = {**CHAT, "stream": True}, {"x-sim-fault": "hang;after=2"}
    with httpx.stream("POST", f"{sim.url}/v1/chat/completions", json=body, headers=headers) as reply:
        next(reply.iter_raw())
    assert sim.wait_until(lambda counts: counts.total.aborted == 1).total.active == 0


def test_wait_until_gives_up(sim: Simulator) -> None:
    """Waiting for what does not come ends with a TimeoutError."""
    with pytest.raises(TimeoutError, match=r"0\.01 s"):
        sim.wait_until(lambda counts: counts.total.requests == 1, timeout=0.01)


def test_requests_have_no_secrets(sim: Simulator) -> None:
    """Remembered requests have their headers and sizes, but no credential, body or query."""
    secret = "sk-very-secret"
    headers = {
        "authorization": secret,
        "x-api-key": secret,
        "api-key": secret,
        "cookie": secret,
        "x-app": "mine",
    }
    httpx.post(f"{sim.url}/v1/chat/completions?key={secret}", json=CHAT, headers=headers)
    (seen,) = sim.requests
    assert (seen.method, seen.path, seen.kind, seen.model) == (
        "POST",
        "/v1/chat/completions",
        "chat",
        "gpt-4o",
    )
    assert seen.header("X-App") == "mine"
    assert seen.header("authorization") is None
    assert seen.body_bytes > 0
    assert secret not in repr(seen)
    assert secret not in httpx.get(f"{sim.url}/_sim/requests").text


def test_reset_keeps_ids_unique(sim: Simulator) -> None:
    """A reset empties the books, and no id comes twice."""
    url = f"{sim.url}/v1/chat/completions"
    first = httpx.post(url, json=CHAT).json()["id"]
    assert httpx.post(f"{sim.url}/_sim/reset").json() == {"status": "ok"}
    assert sim.counts().total.requests == 0
    assert sim.requests == ()
    assert httpx.post(url, json=CHAT).json()["id"] != first


def test_known_models_only() -> None:
    """With `known_models_only` another model is a 404 in the provider's shape."""
    with Simulator(SimulatorOptions(models=("gpt-4o",), known_models_only=True)) as sim:
        url = f"{sim.url}/v1/chat/completions"
        assert httpx.post(url, json=CHAT).status_code == 200
        reply = httpx.post(url, json={**CHAT, "model": "gpt-9"})
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"


def test_latency_is_kept() -> None:
    """A JSON reply takes the time to the first token and the tokens' time, by the model."""
    pace = Latency(first_token=0.03, tokens_per_second=100)
    options = SimulatorOptions(latency_by_model={"gpt-4o": pace}, output_tokens=(5, 5))
    with Simulator(options) as sim:
        url = f"{sim.url}/v1/chat/completions"
        assert int(httpx.post(url, json=CHAT).headers["openai-processing-ms"]) >= 80
        stream = httpx.post(url, json={**CHAT, "stream": True})
    assert stream.text.endswith("data: [DONE]\n\n")
    assert int(stream.headers["openai-processing-ms"]) >= 30


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"[]", {}),
        (b"\xff", {}),
        (b'{"model": "m", "messages": [{}], "stream": 1}', {}),
        (b'{"model": "m", "messages": [{}], "stream_options": []}', {}),
        (b'{"model": "", "messages": [{}]}', {}),
        (b'{"model": "m", "messages": [{}], "tools": [{"function": {"name": "f"}}], "tool_choice": {}}', {}),
        (b'{"model": "m", "messages": [{}]}', {"x-sim-cached": "2"}),
        (b'{"model": "m", "messages": [{}]}', {"x-sim-cached": "half"}),
    ],
)
async def test_bad_bodies_in_process(content: bytes, headers: dict[str, str]) -> None:
    """A body or header that cannot be understood is a 400, never a fault of the simulator."""
    app: Any = Simulator().app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sim") as client:
        reply = await client.post("/v1/chat/completions", content=content, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]


@pytest.mark.anyio
async def test_in_process() -> None:
    """The ASGI application answers in process, on asyncio and trio, also with a pace to keep."""
    options = SimulatorOptions(latency=Latency(first_token=0.001, tokens_per_second=10_000))
    app: Any = Simulator(options).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://sim") as client:
        reply = await client.post("/v1/messages", json={**CHAT, "max_tokens": 9, "stream": True})
        models = await client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert "event: message_stop" in reply.text
    assert models.json()["first_id"] == "gpt-4o"


def test_running_twice_and_not_running() -> None:
    """A simulator runs once at a time, has no address otherwise, and can run again."""
    simulator = Simulator()
    with pytest.raises(UnderlayError, match="not running"):
        _ = simulator.url
    with simulator, pytest.raises(UnderlayError, match="running already"), simulator:
        raise AssertionError
    with simulator:
        assert httpx.get(f"{simulator.url}/_sim/health").status_code == 200


def test_stop_does_not_wait_for_hanging_calls() -> None:
    """Leaving the `with` statement breaks what hangs, and the port is closed after it."""
    errors: list[Exception] = []

    def call(url: str) -> None:
        try:
            httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers={"x-sim-fault": "hang"}, timeout=30)
        except httpx.TransportError as error:
            errors.append(error)

    with Simulator() as sim:
        url = sim.url
        caller = threading.Thread(target=call, args=(url,))
        caller.start()
        sim.wait_until(lambda counts: counts.total.active == 1)
    caller.join(5)
    assert not caller.is_alive()
    assert len(errors) == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_the_listening_socket_names_its_protocol() -> None:
    """asyncio switches delayed sending off only for sockets that say they are TCP: without it a reply waits 40 ms."""
    from underlay.simulator.server import _bind

    with _bind("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("as_json", [True, False])
def test_serve_as_a_command(as_json: bool) -> None:
    """`serve` says its address in one line, as JSON or in words, answers, and ends on an interrupt."""
    code = f"from underlay.simulator import serve; serve(as_json={as_json})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            url = re.findall(r"http://127\.0\.0\.1:\d+", line)[0]
            assert line.startswith('{"schema":1,"url":"' if as_json else "simulator ready: OPENAI_BASE_URL=")
            assert httpx.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert process.stdout.read() == b""
        finally:
            process.kill()


def test_serve_on_a_taken_port() -> None:
    """A port that is taken is an OSError at once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            serve(port=taken.getsockname()[1])


@pytest.mark.parametrize("module", ["starlette.applications", "uvicorn"])
def test_missing_extra(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Without the extra, the error is one line with the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)

    def run() -> None:
        with Simulator():
            raise AssertionError

    with pytest.raises(MissingExtraError, match=r"pip install 'underlay\[simulator\]'") as caught:
        run()
    assert "\n" not in str(caught.value)


def test_import_does_not_need_the_extra() -> None:
    """Importing the package loads neither starlette nor uvicorn."""
    code = "import sys, underlay.simulator; print({'starlette', 'uvicorn', 'openai'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SimulatorOptions(output_tokens=(5, 2)), "output_tokens"),
        (lambda: SimulatorOptions(length="long"), "length"),
        (lambda: SimulatorOptions(cached_fraction=1.5), "cached_fraction"),
        (lambda: SimulatorOptions(tokens_per_event=0), "tokens_per_event"),
        (lambda: SimulatorOptions(models=("",)), "models"),
        (lambda: Latency(first_token=-1), "first_token"),
        (lambda: Latency(jitter=2), "jitter"),
        (lambda: Latency(tokens_per_second=float("nan")), "tokens_per_second"),
        (lambda: Fault(kind="boom"), "kind"),
        (lambda: Fault(kind="status", status=200), "status"),
    ],
)
def test_options_are_checked(make: Any, field: str) -> None:
    """A wrong option is refused with its name, its value and what is allowed."""
    with pytest.raises(SettingsError, match=rf"{field} = .* allowed is"):
        make()


def test_all_wrong_options_are_named_at_once() -> None:
    """Every wrong field is in one error."""
    with pytest.raises(SettingsError) as caught:
        SimulatorOptions(length="long", dimensions=0, keep_requests=-1)
    assert [problem.field for problem in caught.value.problems] == ["length", "dimensions", "keep_requests"]
