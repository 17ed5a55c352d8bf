"""One running simulator for the whole area, clean before each test, and SDK clients that do not retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anthropic
import openai
import pytest

from underlay.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def running() -> Iterator[Simulator]:
    """A simulator with the default options, shared by the area's tests."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def sim(running: Simulator) -> Simulator:
    """The shared simulator with empty books and no fault waiting."""
    running.reset()
    return running


@pytest.fixture
def gpt(sim: Simulator) -> Iterator[openai.OpenAI]:
    """The official OpenAI SDK against the simulator."""
    with openai.OpenAI(base_url=f"{sim.url}/v1", api_key="sk-test", max_retries=0, timeout=5) as client:
        yield client


@pytest.fixture
def claude(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    """The official Anthropic SDK against the simulator."""
    with anthropic.Anthropic(base_url=sim.url, api_key="sk-test", max_retries=0, timeout=5) as client:
        yield client
