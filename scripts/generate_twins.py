"""Write the twins of the hand-written adapter: synchronous, and for the other client family.

    python scripts/generate_twins.py            write them
    python scripts/generate_twins.py --check    exit 1 when one is out of date

The rules are words, not code: each must match at least once, so that a rule that nothing needs any more is
found.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "runtime" / "underlay" / "transports"
SOURCE = "httpx_async.py"
BANNER = '"""The {mode} {family} adapter, generated from {source} by scripts/generate_twins.py."""'

# Ports stay coroutines in both modes: the pipeline awaits them, and the driver never suspends.
SYNC: tuple[tuple[str, str], ...] = (
    (r"async def (?!send\(|let_go\(|pull\(|close\()", "def "),
    (r"\bawait ", ""),
    (r"\bpassing\b", "drive"),
    (r"\bcurrent_home\(\)", "THREADS"),
    (r"\bcurrent_home\b", "THREADS"),
    (r"\banext\(", "next("),
    (r"\bAsyncBaseTransport\b", "BaseTransport"),
    (r"\bAsyncHTTPTransport\b", "HTTPTransport"),
    (r"\bAsyncByteStream\b", "SyncByteStream"),
    (r"\bAsyncGeneratorType\b", "GeneratorType"),
    (r"\bhandle_async_request\b", "handle_request"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__aiter__\b", "__iter__"),
    (r"\b__anext__\b", "__next__"),
    (r"\b__aenter__\b", "__enter__"),
    (r"\b__aexit__\b", "__exit__"),
    (r"\baclose\b", "close"),
)
FAMILY: tuple[tuple[str, str], ...] = ((r"\bhttpx\b", "httpx2"),)


def twin(source: str, family: str, mode: str) -> str:
    """The text of one twin."""
    _, _, body = source.partition('"""\n')  # the module docstring is one line
    rules = (SYNC if mode == "sync" else ()) + (FAMILY if family == "httpx2" else ())
    for pattern, replacement in rules:
        body, count = re.subn(pattern, replacement, body)
        if not count:
            raise SystemExit(f"generate_twins: rule {pattern!r} matches nothing: remove it")
    return (
        BANNER.format(source=SOURCE, mode="synchronous" if mode == "sync" else "asynchronous", family=family)
        + "\n"
        + body
    )


def main() -> int:
    """Write or check every twin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 on a difference")
    check = parser.parse_args().check
    source = (FOLDER / SOURCE).read_text()
    stale = []
    for family, mode in (("httpx", "sync"), ("httpx2", "async"), ("httpx2", "sync")):
        path = FOLDER / f"{family}_{mode}.py"
        wanted = twin(source, family, mode)
        if path.exists() and path.read_text() == wanted:
            continue
        stale.append(path.name)
        if not check:
            path.write_text(wanted)
    if stale and check:
        print(f"out of date: {', '.join(stale)}: run python scripts/generate_twins.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
