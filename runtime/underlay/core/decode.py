"""Content codings undone piece by piece (RFC 9110 §8.4.1), for whoever reads a body beside its real reader.

Decides nothing and touches no socket; the only import at run time is the codec of a coding, at its first use.
A decoder never raises: what it cannot decode sets `failed`, and a body that grows past its bound (a
decompression bomb) sets `lost`. Both give b"" from then on.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import Any, Protocol

__all__ = ["LIMIT", "Decoder", "decoder", "known"]

LIMIT = 64 * 1024 * 1024
"""Default bound of what one body may decode to, in bytes."""

_STEP = 1024 * 1024
"""Most bytes that one call of a codec may put out, where the codec can be held to it."""

_ALIASES = {"x-gzip": "gzip", "x-deflate": "deflate"}


class _Codec(Protocol):
    """One content coding. `decode` gives what is ready; on bad input it raises what its library raises."""

    def decode(self, data: bytes, room: int) -> bytes: ...


class Decoder:
    """Undoes the codings of one body. `failed`: the bytes are not what the header said. `lost`: more than the
    bound came out."""

    __slots__ = ("_codecs", "_room", "failed", "lost")

    def __init__(self, codecs: list[_Codec], limit: int = LIMIT) -> None:
        self._codecs = codecs
        self._room = limit
        self.failed = False
        self.lost = False

    def decode(self, data: bytes) -> bytes:
        """What `data` adds to the decoded body; b"" when nothing is ready, or after `failed` or `lost`."""
        if self.failed or self.lost:
            return b""
        try:
            for codec in self._codecs:
                data = codec.decode(data, self._room)
        except Exception:  # noqa: BLE001  each codec library raises its own kinds, and no kind may reach the caller
            self.failed = True
            return b""
        self._room -= len(data)
        if self._room < 0:
            self.lost = True
            return b""
        return data


def known(content_encoding: str) -> bool:
    """True when every coding of the header's value can be undone here."""
    return decoder(content_encoding) is not None


def decoder(content_encoding: str, *, limit: int = LIMIT) -> Decoder | None:
    """A decoder for the value of `content-encoding`, or None when a coding is unknown or its codec is not
    installed."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    codecs: list[_Codec] = []
    # Codings are listed in the order they were applied, so they are undone from the last.
    for name in reversed([name for name in names if name not in ("", "identity")]):
        make = _CODECS.get(_ALIASES.get(name, name))
        codec = make() if make is not None else None
        if codec is None:
            return None
        codecs.append(codec)
    return Decoder(codecs, limit)


class _Zlib:
    """Gzip with any number of members, zlib, or raw deflate, by `wbits`. Bytes after the end of a zlib stream
    are ignored."""

    __slots__ = ("_members", "_probe", "_stream", "_wbits")

    def __init__(self, wbits: int, *, members: bool = False, probe: bool = False) -> None:
        self._wbits = wbits
        self._members = members
        self._probe = b"" if probe else None
        self._stream: Any = None if probe else zlib.decompressobj(wbits)

    def decode(self, data: bytes, room: int) -> bytes:
        if self._probe is not None:
            data = self._probe + data
            if len(data) < 2:
                self._probe = data
                return b""
            self._probe = None
            # Servers disagree on what `deflate` means: zlib's header is a multiple of 31 whose low nibble is
            # 8 (RFC 1950 §2.2).
            framed = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if framed else -zlib.MAX_WBITS)
        out: list[bytes] = []
        while data and room >= 0:
            if self._stream.eof:
                if not self._members or not (data := data.lstrip(b"\0")):
                    break
                self._stream = zlib.decompressobj(self._wbits)
            piece = self._stream.decompress(data, _STEP)
            room -= len(piece)
            out.append(piece)
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        return b"".join(out)


class _Brotli:
    """Brotli by `brotli` or `brotlicffi`. Output is bounded per call where the library can."""

    __slots__ = ("_bounded", "_stream")

    def __init__(self, module: Any) -> None:
        self._stream = module.Decompressor()
        self._bounded = hasattr(self._stream, "can_accept_more_data")

    def decode(self, data: bytes, room: int) -> bytes:
        if self._stream.is_finished():
            return b""
        if not self._bounded:
            return bytes(self._stream.process(data)) if data else b""
        out = [bytes(self._stream.process(data, output_buffer_limit=_STEP))] if data else []
        while out and room >= 0 and not self._stream.can_accept_more_data():
            out.append(bytes(self._stream.process(b"", output_buffer_limit=_STEP)))
            room -= len(out[-1])
        return b"".join(out)


class _Zstd:
    """Zstandard frames, one after another, by the standard library's interface (`compression.zstd`,
    `backports.zstd`)."""

    __slots__ = ("_make", "_stream")

    def __init__(self, module: Any) -> None:
        self._make = module.ZstdDecompressor
        self._stream = self._make()

    def decode(self, data: bytes, room: int) -> bytes:
        out: list[bytes] = []
        while room >= 0:
            if self._stream.eof:
                if not data:
                    break
                self._stream = self._make()
            out.append(self._stream.decompress(data, max_length=_STEP))
            room -= len(out[-1])
            if self._stream.eof:
                data = self._stream.unused_data
            elif self._stream.needs_input:
                break
            else:
                data = b""
        return b"".join(out)


class _Zstandard:
    """Zstandard frames by the `zstandard` package, whose stream object has no bound on what one call puts
    out.

    Input goes in slices, so that the bound on the whole body is noticed between them.
    """

    __slots__ = ("_make", "_stream")

    _SLICE = 4096

    def __init__(self, module: Any) -> None:
        self._make = module.ZstdDecompressor(max_window_size=2**27).decompressobj
        self._stream = self._make()

    def decode(self, data: bytes, room: int) -> bytes:
        out: list[bytes] = []
        while data and room >= 0:
            if self._stream.eof:
                self._stream = self._make()
            piece, data = data[: self._SLICE], data[self._SLICE :]
            out.append(self._stream.decompress(piece))
            room -= len(out[-1])
            if self._stream.eof:
                data = self._stream.unused_data + data
        return b"".join(out)


def _import(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


def _brotli() -> _Codec | None:
    module = _import("brotli", "brotlicffi")
    return None if module is None else _Brotli(module)


def _zstd() -> _Codec | None:
    module = _import("compression.zstd", "backports.zstd")
    if module is not None:
        return _Zstd(module)
    module = _import("zstandard")
    return None if module is None else _Zstandard(module)


_CODECS = {
    "gzip": lambda: _Zlib(16 + zlib.MAX_WBITS, members=True),
    "deflate": lambda: _Zlib(zlib.MAX_WBITS, probe=True),
    "br": _brotli,
    "zstd": _zstd,
}
