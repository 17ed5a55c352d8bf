"""Threads, loops and odd drivers around one runtime."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from transport_lab import CHAT, CHAT_ASK, CHAT_FRAMES, CHAT_URL, KEY, Lab, json_reply, stream_reply


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_sixteen_threads_share_one_runtime(family: str) -> None:
    """Sixteen threads with clients of their own, asking 40 questions several times each: every answer is right,
    each is fetched once, the books add up, and nothing is lost."""
    lab = Lab(f"sync-{family}").setup(lambda got: json_reply({**CHAT, "id": got.body.decode()}))
    barrier = threading.Barrier(16)

    def work(number: int) -> int:
        client = lab.client()
        barrier.wait(10)
        for at in range(80):
            seed = (at * (number + 1)) % 40
            request = client.build_request("POST", CHAT_URL, json={**CHAT_ASK, "seed": seed}, headers=KEY)
            assert client.send(request).json()["id"] == request.content.decode()
        client.close()
        return 80

    with ThreadPoolExecutor(16) as pool:
        calls = sum(pool.map(work, range(16)))
    (stats,) = lab.runtime.stats().values()
    assert stats.calls == calls == sum(stats.results[name] for name in ("hit", "miss", "coalesced"))
    assert stats.upstream == {"success": lab.upstream}
    assert lab.runtime.cache.size == 40 == lab.upstream == stats.results["miss"]
    assert lab.faults == {}


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_a_synchronous_client_works_inside_a_running_loop(family: str) -> None:
    """A sync client used from a coroutine is driven by hand and never touches the loop."""
    lab = Lab(f"sync-{family}").setup([stream_reply()])

    async def inside() -> None:
        with lab.client() as client:
            for _ in range(2):
                assert client.post(CHAT_URL, json=CHAT_ASK, headers=KEY).content == b"".join(CHAT_FRAMES)

    asyncio.run(inside())
    assert lab.upstream == 1
    assert lab.faults == {}


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_two_loops_share_one_runtime(family: str) -> None:
    """Loops in threads of their own, each with a client of its own, share stored answers."""
    lab = Lab(f"asyncio-{family}").setup([json_reply()])

    async def ask() -> Any:
        async with lab.client() as client:
            return (await client.post(CHAT_URL, json=CHAT_ASK, headers=KEY)).json()

    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: asyncio.run(ask())).result(10) == CHAT
    assert lab.upstream == 1


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_concurrent_tasks_read_their_own_streams(family: str) -> None:
    """Twenty tasks with twenty questions in one loop: each reads its own frames."""
    lab = Lab(f"asyncio-{family}").setup(
        lambda got: stream_reply([b"data: " + got.body + b"\n\n", b"data: [DONE]\n\n"])
    )

    async def ask(client: Any, seed: int) -> None:
        request = client.build_request(
            "POST", CHAT_URL, json={**CHAT_ASK, "stream": True, "seed": seed}, headers=KEY
        )
        response = await client.send(request, stream=True)
        got = [frame async for frame in response.aiter_raw()]
        assert got == [b"data: " + request.content + b"\n\n", b"data: [DONE]\n\n"]

    async def scenario() -> None:
        async with lab.client() as client:
            await asyncio.gather(*(ask(client, seed) for seed in range(20)))

    asyncio.run(scenario())
    assert lab.upstream == 20


@pytest.mark.parametrize("family", ["httpx", "httpx2"])
def test_an_asynchronous_client_without_a_known_loop_passes_untouched(family: str) -> None:
    """A transport that is driven by something that is no loop we know is handed on to, and the app gets its
    answer."""
    lab = Lab(f"asyncio-{family}").setup([])
    answer = lab.module.Response(200, json=CHAT)
    transport = lab.wrap(lab.transport(lambda request: answer))
    work = transport.handle_async_request(lab.module.Request("POST", CHAT_URL, json=CHAT_ASK))
    with pytest.raises(StopIteration) as stop:
        work.send(None)
    assert stop.value.value is answer
    assert sum(lab.faults.values()) == 1
