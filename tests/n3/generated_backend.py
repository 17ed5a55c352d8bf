"""A back end as N3 generates them, unchanged but for the module that its names come from."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from underlay.n3 import (
    RUNTIME_SETTINGS,
    _CircuitBreakerError,
    _get_batch_stats,
    _get_cache_stats,
    _get_circuit_breaker,
    _get_circuit_breaker_stats,
    _get_llm_stats,
    _llm_call,
    _reset_circuit_breaker,
)

PRIMARY = "gpt-4o"
FALLBACK = "claude-sonnet-5-5"


def answer(question: str) -> dict[str, Any]:
    """Ask the primary model; while its circuit is open, the other provider's."""
    try:
        return {"model": PRIMARY, "text": _llm_call(question, model=PRIMARY)}
    except _CircuitBreakerError:
        return {"model": FALLBACK, "text": _llm_call(question, model=FALLBACK)}


def answer_all(questions: list[str]) -> list[dict[str, Any]]:
    """Ask several at once."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(answer, questions))


def health() -> dict[str, Any]:
    """What the monitoring page shows."""
    llm = _get_llm_stats()
    return {
        "cache": _get_cache_stats(),
        "batch": _get_batch_stats(),
        "total_calls": llm["total_calls"],
        "p95_ms": {model: stats["latency_p95"] for model, stats in llm["by_model"].items()},
        "circuits": {
            model: {"state": _get_circuit_breaker(model).get_state(), **_get_circuit_breaker_stats(model)}
            for model in (PRIMARY, FALLBACK)
        },
    }


def repair() -> None:
    """The operator's button."""
    _reset_circuit_breaker(PRIMARY)


def main() -> None:
    """The program's own little workload: 40 questions, every one of them asked a second time."""
    RUNTIME_SETTINGS["llm_cache"]["maxsize"] = 500
    RUNTIME_SETTINGS["circuit_breaker"]["failure_threshold"] = 3
    questions = [f"Question {number}?" for number in range(40)]
    first = answer_all(questions)
    second = answer_all(questions)
    print(json.dumps({"same": first == second, "answers": len(first), "health": health()}))


if __name__ == "__main__":
    main()
