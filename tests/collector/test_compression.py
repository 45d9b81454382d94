from __future__ import annotations

import gzip
import os
import sys
import tracemalloc
from collections.abc import Callable

import pytest

from spanseal_collector.compression import gunzip, unzstd
from spanseal_collector.errors import DecodeError, TooLargeError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Pack = Callable[[bytes], bytes]
Unpack = Callable[[bytes, int], bytes]
BOTH = pytest.mark.parametrize(
    ("pack", "unpack"), [(gzip.compress, gunzip), (zstd.compress, unzstd)], ids=["gzip", "zstd"]
)


@BOTH
def test_several_members_are_one_body(pack: Pack, unpack: Unpack) -> None:
    assert unpack(pack(b"one") + pack(b"") + pack(b"two"), 6) == b"onetwo"
    assert unpack(b"", 100) == b""
    noise = os.urandom(1 << 20)
    assert unpack(pack(noise), 1 << 20) == noise


@BOTH
def test_one_byte_above_the_limit_is_too_large(pack: Pack, unpack: Unpack) -> None:
    for body in (pack(bytes(1000)), pack(bytes(999)) + pack(b"x")):
        assert len(unpack(body, 1000)) == 1000
        with pytest.raises(TooLargeError, match="999"):
            unpack(body, 999)


@BOTH
def test_a_bomb_takes_no_more_memory_than_the_limit(pack: Pack, unpack: Unpack) -> None:
    bomb = pack(bytes(200_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            unpack(bomb, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@BOTH
def test_a_body_of_countless_members_is_refused(pack: Pack, unpack: Unpack) -> None:
    with pytest.raises(DecodeError, match="members"):
        unpack(pack(b"") * 1000, 100)


@BOTH
def test_what_is_damaged_is_told(pack: Pack, unpack: Unpack) -> None:
    whole = pack(b"x" * 100)
    other = (zstd.compress if pack is gzip.compress else gzip.compress)(b"x" * 100)
    for body in (whole[:-5], whole[:3], whole + b"trailing", b"neither", other):
        with pytest.raises(DecodeError):
            unpack(body, 1000)


def test_a_zstd_window_as_large_as_zstd_allows_is_taken_and_no_larger() -> None:
    parameter = zstd.CompressionParameter
    for log, taken in ((27, True), (28, False)):
        compressor = zstd.ZstdCompressor(options={parameter.window_log: log})
        body = compressor.compress(b"x" * 100) + compressor.flush()
        if taken:
            assert unzstd(body, 1000) == b"x" * 100
        else:
            with pytest.raises(DecodeError, match="zstd"):
                unzstd(body, 1000)
