"""One reply on its way out: the ASGI messages, their encoding, and how a connection is broken."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = [
    "CLOSE",
    "App",
    "ConnectionCut",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "Wire",
    "encoder",
    "read_body",
]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Encode = Callable[[bytes, bool], bytes]

CLOSE = "underlay.close"
"""The ASGI extension by which the simulator's own server lets the application close the connection."""


class ConnectionCut(ConnectionError):  # noqa: N818 - it is what was ordered
    """The simulator broke the connection on purpose, where there is no socket to break (in process)."""


class Wire:
    """Sends one reply, and knows how far it came."""

    def __init__(self, send: Send, encode: Encode) -> None:
        self._send = send
        self._encode = encode
        self.started = False
        self.complete = False

    async def head(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        self.started = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    def encoded(self, data: bytes, *, last: bool = False) -> bytes:
        """The bytes for the network; every part is flushed, so that it can be decoded when it arrives."""
        return self._encode(data, last)

    async def part(self, data: bytes) -> None:
        """Send encoded bytes, with more to come."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        """Send the last encoded bytes and end the body properly."""
        self.complete = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


async def read_body(receive: Receive) -> bytes | None:
    """The request's body, None when the client left before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def break_connection(scope: Scope, receive: Receive) -> None:
    """Close the connection under a reply that has not ended; without a socket, raise `ConnectionCut`."""
    close = (scope.get("extensions") or {}).get(CLOSE)
    if close is None:
        raise ConnectionCut("the simulator broke the connection on purpose")
    close()
    while (await receive())["type"] != "http.disconnect":
        continue


def encoder(name: str | None) -> Encode:
    """An incremental encoder: (data, last) -> bytes. None leaves the data as it is."""
    if name is None:
        return lambda data, _last: data
    if name == "gzip":
        deflate = zlib.compressobj(wbits=31)
        return lambda data, last: (
            deflate.compress(data) + deflate.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
        )
    if name == "br":
        brotli: Any = importlib.import_module("brotli").Compressor(quality=4)
        return lambda data, last: brotli.process(data) + (brotli.finish() if last else brotli.flush())
    zstandard: Any = importlib.import_module("zstandard")
    frame: Any = zstandard.ZstdCompressor().compressobj()
    block, finish = zstandard.COMPRESSOBJ_FLUSH_BLOCK, zstandard.COMPRESSOBJ_FLUSH_FINISH
    return lambda data, last: frame.compress(data) + frame.flush(finish if last else block)


def accepted(header: str, name: str | None) -> str | None:
    """The encoding, if `accept-encoding` allows it."""
    offers = [part.split(";") for part in header.lower().split(",")]
    allowed = {offer[0].strip() for offer in offers if "q=0" not in [p.strip() for p in offer[1:]]}
    return name if name in allowed else None
