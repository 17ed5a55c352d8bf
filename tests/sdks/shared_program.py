"""A worker of a host: asks once when it is told to, and says what it got. Run by test_shared_store."""

from __future__ import annotations

import asyncio
import json
import sys

import openai

from underlay import Runtime
from underlay.telemetry.events import CallEnded
from underlay.testing import Recorder


def main() -> None:
    """`shared_program.py MODE URL STORE`: one answer a line of standard input."""
    mode, url, store = sys.argv[1:]
    recorder = Recorder()
    runtime = Runtime({"llm_cache": {"store": store}}, listeners=[recorder])
    ask = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
    print("ready", flush=True)
    for _ in sys.stdin:
        if mode == "sync":
            with openai.OpenAI(
                api_key="key", base_url=f"{url}/v1", http_client=runtime.httpx2_client()
            ) as client:
                reply = client.chat.completions.create(**ask)  # type: ignore[call-overload]
        else:
            reply = asyncio.run(_asked(runtime, url, ask))
        (ended,) = recorder.calls[-1].of(CallEnded)
        faults = {str(stage): count for stage, count in runtime.engine.faults.counts.items()}
        print(json.dumps([reply.id, reply.choices[0].message.content, ended.result, faults]), flush=True)


async def _asked(runtime: Runtime, url: str, ask: dict[str, object]) -> object:
    async with openai.AsyncOpenAI(
        api_key="key", base_url=f"{url}/v1", http_client=runtime.async_httpx2_client()
    ) as client:
        return await client.chat.completions.create(**ask)  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
