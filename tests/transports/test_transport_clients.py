"""The clients that a runtime makes: their options, proxies and cover."""

from __future__ import annotations

import ssl
from importlib import import_module
from typing import Any

import pytest
from transport_lab import (
    CHAT,
    CHAT_URL,
    Lab,
    json_reply,
)

from underlay import Runtime
from underlay.telemetry.events import AttemptEnded
from underlay.testing import Recorder
from underlay.transports import seam

# httpx leaves a generator of its own behind when a body is left early, which trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator 'httpx._client:ResourceWarning")


def ready(lab: Lab, runtime: Runtime, **options: Any) -> Any:
    """A ready client of the runtime, of this bench's family and mode."""
    prefix = "" if lab.kind == "sync" else "async_"
    return getattr(runtime, f"{prefix}{lab.family}_client")(**options)


def under(lab: Lab, client: Any, url: str = CHAT_URL) -> Any:
    """The transport that a client would send through."""
    return client._transport_for_url(lab.module.URL(url))


def test_the_options_of_a_ready_client_count(lab: Lab) -> None:
    """TLS, proxies, mounts and a transport of the app's own are what the options say, with underlay over
    each."""
    runtime = lab.runtime
    plain = ready(lab, runtime, verify=False)
    assert under(lab, plain).inner._pool._ssl_context.verify_mode is ssl.CERT_NONE
    proxied = ready(lab, runtime, proxy="http://127.0.0.1:9")
    assert "Proxy" in type(under(lab, proxied).inner._pool).__name__
    own = lab.script.transport(lab.family, lab.kind)
    for options in ({"transport": own}, {"mounts": {"https://api.openai.com": own}}):
        covered = under(lab, ready(lab, runtime, **options))
        assert (covered.inner, covered.engine) == (own, runtime.engine)
    assert isinstance(plain, getattr(lab.module, "Client" if lab.kind == "sync" else "AsyncClient"))


def test_a_ready_client_uses_the_proxies_of_the_environment(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bare client would, unless it is told not to trust the environment."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "Proxy" in type(under(lab, ready(lab, lab.runtime)).inner._pool).__name__
    assert "Proxy" not in type(under(lab, ready(lab, lab.runtime, trust_env=False)).inner._pool).__name__


@pytest.mark.parametrize("env", ["HTTPS_PROXY", "ALL_PROXY"])
def test_library_calls_use_the_proxies_of_the_environment(
    lab: Lab, env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`runtime.call` goes out the way any client of the process would."""
    monkeypatch.setenv(env, "http://127.0.0.1:9")

    async def scenario() -> None:
        library = lab.runtime._library
        client = library._sync() if lab.kind == "sync" else library._async()
        transport = client._transport_for_url(import_module("httpx").URL(CHAT_URL))
        assert transport.engine is lab.runtime.engine
        assert "Proxy" in type(transport.inner._pool).__name__
        await lab._await(lab.runtime.close() if lab.kind == "sync" else lab.runtime.aclose())

    lab.run(scenario)


def test_a_ready_client_is_covered_by_a_release_without_the_seam(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the private seam is gone, a ready client still goes through the runtime, by the public
    `transport=`."""
    monkeypatch.setattr(seam, "_METHOD", "_renamed_tomorrow")
    client = ready(lab, lab.runtime)
    assert under(lab, client).engine is lab.runtime.engine
    assert type(under(lab, client).inner) is getattr(
        lab.module, "HTTPTransport" if lab.kind == "sync" else "AsyncHTTPTransport"
    )


def test_a_ready_client_keeps_its_own_runtime_under_zero_code(lab: Lab) -> None:
    """Where another runtime is under every client of the process, a ready client goes through its own
    alone."""
    other = Recorder()
    lab.setup([json_reply()])
    seam.install(Runtime({}, listeners=[other]).engine)
    try:

        async def scenario() -> None:
            client = ready(lab, lab.runtime, transport=lab.script.transport(lab.family, lab.kind))
            for _ in range(2):
                assert (await lab.post(client)).json() == CHAT

        lab.run(scenario)
    finally:
        seam.remove()
    assert (lab.upstream, len(lab.recorder.calls), other.calls) == (1, 2, [])
    assert len(lab.recorder.calls[0].of(AttemptEnded)) == 1
