"""Zero-code use: which clients are covered, and that taking the seam out leaves nothing behind."""

from __future__ import annotations

import types
from importlib import import_module
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from transport_lab import CHAT, CHAT_ASK, CHAT_URL, MESSAGE, WAYS, Lab, json_reply

import underlay
from underlay.testing import Script
from underlay.transports import seam


@pytest.fixture(params=[way for way in WAYS if not way.startswith("trio")])
def lab(request: pytest.FixtureRequest) -> Lab:
    """A bench whose bare clients meet the seam."""
    return Lab(request.param).setup([json_reply()])


def scripted(lab: Lab) -> Any:
    """The script's transport, without underlay over it."""
    return lab.script.transport(lab.family, lab.kind)


def calls(runtime: underlay.Runtime) -> int:
    """Calls that the runtime has seen."""
    return sum(stats.calls for stats in runtime.stats().values())


async def ask_twice(lab: Lab, client: Any) -> None:
    """The same question twice."""
    for _ in range(2):
        assert (await lab.post(client)).json() == CHAT


def test_clients_made_before_and_after_are_covered(lab: Lab) -> None:
    """A client that existed before `instrument()` is covered like one made later, and they share answers."""

    async def scenario() -> None:
        before = lab.bare(scripted(lab))
        runtime = underlay.instrument({})
        await ask_twice(lab, before)
        await ask_twice(lab, lab.bare(scripted(lab)))
        assert (lab.upstream, calls(runtime)) == (1, 4)

    lab.run(scenario)


def test_a_client_that_was_used_before_is_covered(lab: Lab) -> None:
    """Connections and state of a client in use stay; its next call is covered."""

    async def scenario() -> None:
        client = lab.bare(scripted(lab))
        await lab.post(client)
        transport = client._transport
        runtime = underlay.instrument({})
        await ask_twice(lab, client)
        assert client._transport is transport
        assert (lab.upstream, calls(runtime)) == (2, 2)

    lab.run(scenario)


def test_subclasses_are_covered(lab: Lab) -> None:
    """A subclass of a client, made by anybody, is covered."""
    name = "Client" if lab.kind == "sync" else "AsyncClient"
    own = type("Own", (getattr(lab.module, name),), {})

    async def scenario() -> None:
        underlay.instrument({})
        client = own(transport=scripted(lab))
        await ask_twice(lab, client)
        await lab._await(client.close() if lab.kind == "sync" else client.aclose())
        assert lab.upstream == 1

    lab.run(scenario)


def test_mounts_are_covered(lab: Lab) -> None:
    """A transport that is mounted for a host is the one that is wrapped, and the default stays unused."""
    other = Script([])

    async def scenario() -> None:
        underlay.instrument({})
        default = other.transport(lab.family, lab.kind)
        client = lab.bare(default, mounts={"all://api.openai.com": scripted(lab)})
        await ask_twice(lab, client)
        assert (lab.upstream, other.sent) == (1, [])

    lab.run(scenario)


def test_proxies_of_the_environment_stay(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """With HTTPS_PROXY set, the transport under ours is the client's own proxy transport, not a new one."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async def scenario() -> None:
        client = lab.bare(None)
        url = lab.module.URL(CHAT_URL)
        plain = client._transport_for_url(url)
        assert plain is not client._transport
        runtime = underlay.instrument({})
        wrapped = client._transport_for_url(url)
        assert wrapped.inner is plain
        assert wrapped.engine is runtime.engine
        try:
            await lab.post(client)
        except lab.module.ConnectError as error:
            assert error.request.url == CHAT_URL
        else:
            raise AssertionError("nothing listens there")

    lab.run(scenario)


def test_an_explicit_transport_is_not_wrapped_twice(lab: Lab) -> None:
    """A client over a runtime of its own keeps to it: the global runtime does not see the call."""

    async def scenario() -> None:
        runtime = underlay.instrument({})
        client = lab.client()
        await ask_twice(lab, client)
        assert (lab.upstream, calls(lab.runtime), calls(runtime)) == (1, 2, 0)

    lab.run(scenario)


def test_uninstrument_leaves_nothing(lab: Lab, clean: list[Any]) -> None:
    """Afterwards the classes are byte for byte what they were, and clients made under the seam go on without
    it."""
    owners = [getattr(module, name) for module in (httpx, httpx2) for name in ("Client", "AsyncClient")]
    before = [dict(vars(owner)) for owner in owners]

    async def scenario() -> None:
        runtime = underlay.instrument({})
        client = lab.bare(scripted(lab))
        await ask_twice(lab, client)
        underlay.uninstrument()
        assert [dict(vars(owner)) for owner in owners] == before
        assert not seam.installed()
        await ask_twice(lab, client)
        assert (lab.upstream, calls(runtime)) == (3, 2)

    lab.run(scenario)


def test_a_response_in_hand_is_read_to_its_end_after_uninstrument(lab: Lab) -> None:
    """A body that was opened under the seam is read and recorded to its end."""

    async def scenario() -> None:
        runtime = underlay.instrument({})
        response = await lab.open(lab.bare(scripted(lab)))
        underlay.uninstrument()
        assert await lab.read(response)
        assert calls(runtime) == 1

    lab.run(scenario)


def test_instrument_twice_is_once(lab: Lab) -> None:
    """Called again it gives the same runtime, and calls are seen once; other settings are refused by name."""

    async def scenario() -> None:
        runtime = underlay.instrument({"llm_cache": {"maxsize": 7}})
        assert underlay.instrument() is runtime
        assert underlay.instrument({"llm_cache": {"maxsize": 7}}) is runtime
        with pytest.raises(ValueError, match=r"underlay\.uninstrument"):
            underlay.instrument({"llm_cache": {"maxsize": 8}})
        await ask_twice(lab, lab.bare(scripted(lab)))
        assert calls(runtime) == 2

    lab.run(scenario)


def test_who_wrapped_on_top_of_us_stays(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken out from under somebody else's wrapper, ours lets everything pass; put in again, each call is seen
    once."""
    owner = getattr(lab.module, "Client" if lab.kind == "sync" else "AsyncClient")
    underlay.instrument({})
    ours = owner._transport_for_url
    seen: list[str] = []

    def theirs(self: Any, url: Any) -> Any:
        seen.append(str(url))
        return ours(self, url)

    original = ours.__wrapped__
    owner._transport_for_url = theirs

    async def scenario() -> None:
        client = lab.bare(scripted(lab))
        underlay.uninstrument()
        assert owner._transport_for_url is theirs
        await ask_twice(lab, client)
        assert (lab.upstream, len(seen)) == (2, 2)
        runtime = underlay.instrument({})
        await ask_twice(lab, client)
        assert (lab.upstream, len(seen), calls(runtime)) == (3, 4, 2)

    try:
        lab.run(scenario)
    finally:
        underlay.uninstrument()
        owner._transport_for_url = original


def test_the_other_familys_clients_are_covered_too() -> None:
    """One runtime is under both families at once."""
    runtime = underlay.instrument({})
    script = Script([json_reply()])
    for family in ("httpx", "httpx2"):
        with import_module(family).Client(transport=script.transport(family, "sync")) as client:  # type: ignore[arg-type]
            assert (
                client.post(
                    CHAT_URL, json=CHAT_ASK, headers={"user-agent": "x", "accept-encoding": "identity"}
                ).json()
                == CHAT
            )
    assert (len(script.sent), calls(runtime)) == (1, 2)


def test_disabled_settings_put_nothing_in(clean: list[Any]) -> None:
    """UNDERLAY_DISABLED leaves every class as it is."""
    underlay.instrument({"disabled": True})
    assert not seam.installed()
    assert httpx.Client.__dict__["_transport_for_url"] is clean[0]


@pytest.mark.parametrize("family", ["httpx2", "httpx"])
def test_sdks_and_their_copies_are_covered(family: Any) -> None:
    """An official SDK's client made before, its `with_options` copy, and a legacy httpx client under it: all
    covered."""
    script = Script(lambda got: json_reply(MESSAGE if got.url.endswith("/messages") else CHAT))
    module = import_module(family)
    http = module.Client(transport=script.transport(family, "sync"))
    ours = openai.OpenAI(api_key="k", http_client=http, base_url="https://api.openai.com/v1")
    # This SDK takes clients of its own family only.
    http2 = httpx2.Client(transport=script.transport("httpx2", "sync"))
    theirs = anthropic.Anthropic(api_key="k", http_client=http2, base_url="https://api.anthropic.com")
    runtime = underlay.instrument({})
    for client in (ours, ours.with_options(max_retries=0), ours.copy()):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hi"}])
    for copy in (theirs, theirs.with_options(timeout=3)):
        copy.messages.create(
            model="claude-sonnet-5-5", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        )
    assert (len(script.sent), calls(runtime)) == (2, 5)
    ours.close()
    theirs.close()


def test_the_probe_says_what_holds() -> None:
    """Every installed class is covered, and the probe names its release."""
    assert [(found.family, found.client, found.holds) for found in seam.probe()] == [
        (family, client, True) for family in ("httpx", "httpx2") for client in ("Client", "AsyncClient")
    ]
    assert seam.probe()[0].detail == f"httpx {httpx.__version__}"
    assert seam.probe()[2].detail == f"httpx2 {httpx2.__version__}"


NAMES = ("Client", "AsyncClient")


class Renamed:
    """A client of a release that has another seam."""


class Widened:
    """A client whose seam takes more."""

    def _transport_for_url(self, url: Any, more: Any) -> Any:
        """Another signature."""


class Base:
    """Where a release has moved the method to."""

    def _transport_for_url(self, url: Any) -> Any:
        """The usual signature."""


class Inherited(Base):
    """A client that inherits the seam."""


@pytest.mark.parametrize("client", [Renamed, Widened, Inherited])
def test_a_release_with_another_seam_is_not_covered_and_runs_on(
    client: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the private method is gone, moved or changed, the probe says "not covered" and `instrument()` touches
    nothing of it. Nor does the process remember: what has the seam is covered the next time."""
    fake = types.ModuleType("httpx")
    fake.__version__ = "9"  # type: ignore[attr-defined]
    fake.__spec__ = httpx.__spec__
    fake.Client = fake.AsyncClient = client  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "httpx", fake)
    before = dict(vars(client))
    assert [(found.holds, "not covered" in found.detail) for found in seam.probe(("httpx",))] == [
        (False, True)
    ] * 2
    underlay.instrument({})
    assert dict(vars(client)) == before
    underlay.uninstrument()
    monkeypatch.undo()
    underlay.instrument({})
    assert all(hasattr(getattr(httpx, name)._transport_for_url, "__underlay_seam__") for name in NAMES)


def test_a_family_that_is_not_installed_is_no_error() -> None:
    """The probe of a family that is absent says so."""
    assert [found.detail for found in seam.probe(("no_such_family",))] == ["not installed"] * 2
