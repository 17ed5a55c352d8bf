"""The seam in processes of its own: families imported later, fork children."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = """
import json, os, sys
import underlay
ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = {"id": "x", "object": "chat.completion", "model": "gpt-4o", "choices": [{"index": 0, "finish_reason": "stop",
          "message": {"role": "assistant", "content": "Hi"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
URL = "https://api.openai.com/v1/chat/completions"
sent = []
def client(module):
    def handle(request):
        sent.append(1)
        return module.Response(200, json=ANSWER)
    return module.Client(transport=module.MockTransport(handle))
def calls(runtime):
    return sum(stats.calls for stats in runtime.stats().values())
"""


def run(code: str) -> str:
    """Run a program; its output, or a failure with what it said."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_family_imported_later_is_covered(family: str) -> None:
    """`instrument()` first, the client family afterwards: covered from its first client on."""
    code = f"""
runtime = underlay.instrument({{}})
assert {family!r} not in sys.modules
import {family} as family
with client(family) as c:
    for _ in range(2):
        assert c.post(URL, json=ASK).json() == ANSWER
print(len(sent), calls(runtime))
underlay.uninstrument()
assert not hasattr(family.Client._transport_for_url, "__underlay_seam__")
"""
    assert run(code) == "1 2"


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_family_that_is_imported_as_it_is_looked_for_is_covered(family: str) -> None:
    """By another thread, between the look and the hook: the hook is called at once, and once."""
    code = f"""
import wrapt
register = wrapt.register_post_import_hook
def late(hook, name):
    __import__(name)
    register(hook, name)
wrapt.register_post_import_hook = late
for _ in range(2):
    runtime = underlay.instrument({{}})
    import {family} as family
    with client(family) as c:
        for _ in range(2):
            c.post(URL, json=ASK)
    print(len(sent), calls(runtime))
    underlay.uninstrument()
    assert not hasattr(family.Client._transport_for_url, "__underlay_seam__")
"""
    assert run(code).split() == ["1", "2", "2", "2"]


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_the_hook_of_an_import_obeys_uninstrument(family: str) -> None:
    """Taken out before the family is imported, nothing is put in; put in again afterwards, it is covered."""
    code = f"""
underlay.instrument({{}})
underlay.uninstrument()
import {family} as family
assert not hasattr(family.Client._transport_for_url, "__underlay_seam__")
with client(family) as c:
    c.post(URL, json=ASK)
    runtime = underlay.instrument({{}})
    c.post(URL, json=ASK)
    c.post(URL, json=ASK)
print(len(sent), calls(runtime))
"""
    assert run(code) == "2 2"


def test_instrument_out_in_and_then_import_is_covered_once() -> None:
    """However often it is put in and taken out before the import, each call is seen once, by the last runtime."""
    code = """
for _ in range(3):
    runtime = underlay.instrument({})
    underlay.uninstrument()
runtime = underlay.instrument({})
import httpx
with client(httpx) as c:
    c.post(URL, json=ASK)
print(len(sent), calls(runtime))
"""
    assert run(code) == "1 1"


FORK = """
import httpx, threading
from underlay.testing import FakeClock
runtime = underlay.Runtime({"circuit_breaker": {"failure_threshold": 1}}, listeners=LISTENERS)
engine = runtime.engine
answers = [200]
def handle(request):
    sent.append(1)
    return httpx.Response(answers[0], json={**ANSWER, "model": json.loads(request.content)["model"]})
http = httpx.Client(transport=runtime.httpx_transport(httpx.MockTransport(handle)))
http.post(URL, json=ASK)
answers[0] = 500
http.post(URL, json={**ASK, "model": "gpt-4o-mini"})
answers[0] = 200
assert runtime.circuit("gpt-4o-mini").state == "open"
held = [engine.state.circuits._lock, engine.state.store._lock, engine.state.memo._lock, runtime._statistics._lock, engine.prices._lock]
for lock in held:
    lock.acquire()
pid = os.fork()
if pid == 0:
    import signal
    signal.alarm(20)  # a lock of the parent would be waited for until this ends the child
    sent.clear()
    http.post(URL, json=ASK)
    hit = len(sent)
    for model in ("gpt-4o-mini", "gpt-4.1", "o3"):
        assert http.post(URL, json={**ASK, "model": model}).status_code == 200
    print(hit, len(sent), calls(runtime), runtime.circuit("gpt-4o-mini").state, runtime.cache.size, flush=True)
    os._exit(0)
for lock in held:
    lock.release()
assert os.waitpid(pid, 0)[1] == 0
assert runtime.circuit("gpt-4o-mini").state == "open"
print(calls(runtime))
"""


def test_a_fork_child_starts_afresh_with_what_was_stored() -> None:
    """In a child no lock of the parent is waited for; circuits and counts start afresh, stored answers are
    there; the parent goes on as it was."""
    assert run(FORK.replace("LISTENERS", "[]")).split("\n") == ["0 3 4 closed 4", "2"]


def test_a_listener_that_fails_in_the_child_breaks_nothing() -> None:
    """A listener whose `forked` raises costs the child nothing."""
    code = """
class Bad:
    def start(self, started):
        from underlay.telemetry.listener import QuietHandle
        handle = QuietHandle()
        return type("H", (QuietHandle,), {"event": lambda self, event: None})()
    def event(self, event):
        return None
    def forked(self):
        raise RuntimeError("listener")
"""
    assert run(code + FORK.replace("LISTENERS", "[Bad()]")).split("\n") == ["0 3 4 closed 4", "2"]
