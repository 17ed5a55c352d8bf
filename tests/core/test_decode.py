"""Content codings undone beside the real reader: piece by piece, bounded, and never raising."""

from __future__ import annotations

import gzip
import importlib
import zlib
from types import ModuleType
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from underlay.core import decode
from underlay.core.decode import decoder, known

BODY = b'{"data": "' + b"the quick brown fox " * 500 + b'"}'


def raw_deflate(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


ENCODE = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
}


def run(coding: str, data: bytes, size: int, limit: int = decode.LIMIT) -> tuple[bytes, decode.Decoder]:
    undo = decoder(coding, limit=limit)
    assert undo is not None
    return b"".join(undo.decode(data[i : i + size]) for i in range(0, len(data), size)), undo


@pytest.mark.parametrize("coding", list(ENCODE))
@pytest.mark.parametrize("size", [1, 13, 100_000])
def test_every_coding_in_every_slicing(coding: str, size: int) -> None:
    """What was encoded comes back, whether it arrives by the byte or at once."""
    out, undo = run(coding, ENCODE[coding](BODY), size)
    assert out == BODY
    assert not undo.failed
    assert not undo.lost


@given(st.binary(max_size=2000), st.integers(1, 50), st.sampled_from(["gzip", "deflate", "br", "zstd"]))
def test_round_trip(data: bytes, size: int, coding: str) -> None:
    """Any bytes survive any slicing."""
    assert run(coding, ENCODE[coding](data), size)[0] == data


@pytest.mark.parametrize("size", [1, 2, 100_000])
def test_raw_deflate(size: int) -> None:
    """`deflate` without zlib's header is read too: servers disagree on it."""
    assert run("deflate", raw_deflate(BODY), size)[0] == BODY


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members(coding: str, size: int) -> None:
    """Members or frames that follow each other are one body."""
    assert run(coding, ENCODE[coding](b"one ") + ENCODE[coding](b"two"), size)[0] == b"one two"


def test_padding_after_gzip_is_ignored() -> None:
    """Zero bytes after the last member are padding (gzip's own tool allows them)."""
    assert run("gzip", gzip.compress(b"x") + b"\0\0", 3)[0] == b"x"


def test_codings_are_undone_from_the_last() -> None:
    """`gzip, br` was gzipped first and is unbrotlied first."""
    assert run("gzip, br", brotli.compress(gzip.compress(BODY)), 64)[0] == BODY


@pytest.mark.parametrize("coding", ["", "identity", " Identity , GZIP "])
def test_spelling(coding: str) -> None:
    """Empty and identity are no coding; case and spaces do not matter."""
    assert known(coding)


@pytest.mark.parametrize("coding", ["compress", "exi", "gzip, pack200-gzip", "aes128gcm"])
def test_an_unknown_coding_has_no_decoder(coding: str) -> None:
    """What cannot be undone is said to be so, instead of being read as it is."""
    assert decoder(coding) is None
    assert not known(coding)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_garbage_fails_without_raising(coding: str) -> None:
    """Bytes that are not what the header said give nothing, and a flag."""
    undo = decoder(coding)
    assert undo is not None
    out = b"".join(undo.decode(b"\xffthis is no compressed body" * 50) for _ in range(3))
    assert out == b""
    assert undo.failed


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_left_alone(coding: str) -> None:
    """A body that decodes to more than the bound is given up, with little more than the bound held."""
    undo = decoder(coding, limit=100_000)
    assert undo is not None
    assert undo.decode(ENCODE[coding](b"\0" * 20_000_000)) == b""
    assert undo.lost
    assert undo.decode(b"more") == b""


def test_bytes_after_the_end_of_brotli_are_ignored() -> None:
    """A finished brotli stream has said everything; what a server sends behind it is no part of the body."""
    undo = decoder("br")
    assert undo is not None
    assert undo.decode(brotli.compress(b"x")) == b"x"
    assert undo.decode(b"tail") == b""
    assert not undo.failed


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_a_codec_that_is_not_installed_is_unknown(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a codec module the coding has no decoder, and nothing raises."""

    def missing(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(decode, "import_module", missing)
    assert decoder(coding) is None


def test_zstd_by_the_standard_library_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interface of `compression.zstd` (Python 3.14) is used where it exists: eof, needs_input,
    unused_data, max_length."""

    class ZstdDecompressor:
        """The standard interface, over the installed package."""

        def __init__(self) -> None:
            self._inner = zstandard.ZstdDecompressor().decompressobj()
            self._ready = b""
            self.needs_input = True

        @property
        def eof(self) -> bool:
            return self._inner.eof and not self._ready

        @property
        def unused_data(self) -> bytes:
            return self._inner.unused_data

        def decompress(self, data: bytes, max_length: int) -> bytes:
            self._ready += self._inner.decompress(data) if data else b""
            out, self._ready = self._ready[:max_length], self._ready[max_length:]
            self.needs_input = not self._ready
            return out

    def find(name: str) -> Any:
        module = ModuleType(name)
        module.__dict__["ZstdDecompressor"] = ZstdDecompressor
        return module if name == "compression.zstd" else importlib.import_module(name)

    monkeypatch.setattr(decode, "import_module", find)
    assert run("zstd", zstandard.compress(b"\0" * 9_000_000), 999, limit=2_000_000)[1].lost
    data = zstandard.compress(BODY * 300) + zstandard.compress(b"two")
    assert run("zstd", data, 50)[0] == BODY * 300 + b"two"


def test_brotli_without_output_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older brotli, whose decompressor takes no output bound, works the same."""

    class Decompressor:
        def __init__(self) -> None:
            self._inner = brotli.Decompressor()

        def process(self, data: bytes) -> bytes:
            return bytes(self._inner.process(data))

        def is_finished(self) -> bool:
            return bool(self._inner.is_finished())

    module = ModuleType("brotli")
    module.__dict__["Decompressor"] = Decompressor
    monkeypatch.setattr(decode, "import_module", lambda name: module)
    assert run("br", brotli.compress(BODY), 10)[0] == BODY
