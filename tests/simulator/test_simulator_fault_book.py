"""The book of faults: scope, counts, options, and the admin paths."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from underlay.errors import SettingsError
from underlay.simulator import Fault, Simulator, SimulatorOptions
from underlay.simulator.faults import FaultBook, parse_faults


def post(sim: Simulator, fault: str = "", model: str = "gpt-4o") -> Any:
    """One chat completion with plain httpx."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    headers = {"x-sim-fault": fault}
    return httpx.post(f"{sim.url}/v1/chat/completions", json=body, headers=headers, timeout=5)


def test_count_and_scope(sim: Simulator) -> None:
    """A fault from the book hits its model, path and provider only, as often as it says."""
    sim.fault("503", model="gpt-4o", path="chat", provider="openai", count=2)
    assert post(sim, model="claude").status_code == 200
    assert [post(sim).status_code for _ in range(3)] == [503, 503, 200]


def test_outage(sim: Simulator) -> None:
    """An outage of one model lasts until it is over."""
    with sim.outage("gpt-4o"):
        assert [post(sim).status_code for _ in range(3)] == [503] * 3
        assert post(sim, model="claude").status_code == 200
    assert post(sim).status_code == 200


def test_options_faults_survive_reset() -> None:
    """The faults of the options are in force again after a reset."""
    with Simulator(SimulatorOptions(faults=(Fault.parse("529", count=1),))) as sim:
        assert [post(sim).status_code for _ in range(2)] == [529, 200]
        sim.reset()
        assert post(sim).status_code == 529


def test_admin(sim: Simulator) -> None:
    """Faults are ordered, shown and cleared over HTTP."""
    url = f"{sim.url}/_sim/faults"
    orders = [{"fault": "429;retry_after=2", "model": "gpt-4o", "count": 3}, {"fault": "slow;seconds=0"}]
    first, second = httpx.post(url, json=orders).json()["ids"]
    assert post(sim).headers["retry-after"] == "2"
    shown = httpx.get(url).json()
    assert [entry["id"] for entry in shown] == [first, second]
    assert shown[0]["fault"] == "429;retry_after=2"
    assert shown[0]["count"] == 2
    assert httpx.delete(url, params={"id": first}).json() == {"cleared": 1}
    assert post(sim).status_code == 200
    assert httpx.delete(url).json() == {"cleared": 1}
    assert httpx.get(url).json() == []
    assert httpx.get(f"{sim.url}/_sim/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("order", "part"),
    [
        (b"{", "not JSON"),
        (b"[1]", "an object"),
        (b'{"fault": "banana"}', "banana"),
        (b'{"fault": 3}', "a text"),
        (b'{"fault": "429", "mdoel": "x"}', "mdoel"),
        (b'{"fault": "429", "count": 0}', "count"),
        (b'{"fault": "429", "path": "chatt"}', "chatt"),
    ],
)
def test_admin_refuses(sim: Simulator, order: bytes, part: str) -> None:
    """A wrong order is a 400 that names what is wrong, and changes nothing."""
    reply = httpx.post(f"{sim.url}/_sim/faults", content=order)
    assert reply.status_code == 400
    assert part in reply.json()["error"]["message"]
    assert httpx.get(f"{sim.url}/_sim/faults").json() == []
    assert httpx.delete(f"{sim.url}/_sim/faults", params={"id": "x"}).status_code == 400


@pytest.mark.parametrize(
    "header",
    ["banana", "429;after=x", "429;color=3", "200", "cut;after=-1", "slow;seconds=inf"],
)
def test_wrong_header(sim: Simulator, header: str) -> None:
    """A wrong fault header is refused by name rather than ignored."""
    reply = post(sim, header)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "x-sim-fault"
    with pytest.raises(SettingsError):
        parse_faults(header)


def test_first_ending_wins_and_shadowed_ones_wait() -> None:
    """Of two endings the first one counts, the other waits for the next call; encodings and delays join."""
    book = FaultBook([Fault.parse(text, count=1) for text in ("500", "cut", "gzip", "slow;seconds=2")])
    first = book.take("openai", "chat", "m", parse_faults("slow;seconds=1"))
    assert (first.kind, first.encoding, first.slow) == ("status", "gzip", 3.0)
    assert book.take("openai", "chat", "m").kind == "cut"
    assert book.waiting() == {}
