"""A provider simulator: OpenAI and Anthropic on loopback, with faults on demand and exact books.

Needs the extra `simulator`; importing this package does not, making a `Simulator` does. Answers are a
function of the seed and the request's body (`text`), vectors of the input, the model and the dimensions
(`openai_embeddings`), times of the seed and the body (`latency`); only ids and dates differ between two
answers to one request.
"""

from __future__ import annotations

from underlay.simulator.counts import Counts, RouteCounts, Seen
from underlay.simulator.faults import Fault
from underlay.simulator.options import Latency, SimulatorOptions
from underlay.simulator.server import Simulator, serve
from underlay.simulator.wire import ConnectionCut

__all__ = [
    "ConnectionCut",
    "Counts",
    "Fault",
    "Latency",
    "RouteCounts",
    "Seen",
    "Simulator",
    "SimulatorOptions",
    "serve",
]
