"""Code streams of every transfer syntax that is decoded, and what an attacker or a bad disk makes of them.

Run as a program it decodes damaged ones in a process of its own, which ends when a decoder crashes, takes too
long or too much memory: ``python -m tests.support.hostile_streams NAME COUNT SEED`` prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import resource
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import imagecodecs
import numpy as np
from pydicom import uid

from node.errors import UnsupportedPixelData
from node.transcode import codestreams
from node.transcode.codecs import CODECS
from node.transcode.facts import PixelFacts

#: What decoding any of these frames may take beside what the process has already.
MOST_BYTES = 48 << 20
CPU_SECONDS_EACH = 0.5

ROWS, COLUMNS = 61, 83


@dataclass(frozen=True)
class Stream:
    """A frame as it should be."""

    transfer_syntax_uid: str
    encoded: bytes
    facts: PixelFacts


def _facts(**changes: object) -> PixelFacts:
    grey = PixelFacts(ROWS, COLUMNS, 1, 16, 12, 11, False, 0, "MONOCHROME2", 1)
    return replace(grey, **changes)  # type: ignore[arg-type]


def _grey() -> np.ndarray:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    noise = np.random.default_rng(5).integers(0, 40, (ROWS, COLUMNS))
    return (1500 + 900 * np.sin(x / 9) * np.cos(y / 7) + noise).astype(np.uint16)


def streams() -> dict[str, Stream]:
    """One of each family and colour, by name."""
    grey, facts = _grey(), _facts()
    bytes_, byte_facts = (grey >> 4).astype(np.uint8), _facts(bits_allocated=8, bits_stored=8, high_bit=7)
    colours = np.stack([bytes_, 255 - bytes_, bytes_ // 2], axis=-1)
    colour_facts = replace(byte_facts, samples_per_pixel=3, photometric_interpretation="RGB")
    bit_facts = _facts(bits_allocated=1, bits_stored=1, high_bit=0)
    found = {}
    for name, codec in CODECS.items():
        if name == "deflated-frame":
            words, what = (grey > 1500).astype(np.uint8), bit_facts
        else:
            words, what = grey, facts
        found[name] = Stream(codec.transfer_syntax_uid, codec.encode(words, what), what)
        if name != "deflated-frame":
            found[f"{name} of colours"] = Stream(
                codec.transfer_syntax_uid, codec.encode(colours, colour_facts), colour_facts
            )
    luminance = replace(colour_facts, photometric_interpretation="YBR_FULL_422")
    lossy = {
        "jpeg baseline": (uid.JPEGBaseline8Bit, imagecodecs.jpeg8_encode(bytes_, level=80), byte_facts),
        "jpeg baseline of colours": (
            uid.JPEGBaseline8Bit,
            imagecodecs.jpeg8_encode(colours, level=80),
            luminance,
        ),
        "jpeg extended": (
            uid.JPEGExtended12Bit,
            imagecodecs.jpeg8_encode(grey, level=80, bitspersample=12),
            facts,
        ),
        "jpeg-ls near": (uid.JPEGLSNearLossless, imagecodecs.jpegls_encode(grey, level=2), facts),
        "jpeg2000 lossy": (
            uid.JPEG2000,
            imagecodecs.jpeg2k_encode(grey, level=40, codecformat="j2k", reversible=False, bitspersample=12),
            facts,
        ),
        "htj2k lossy": (uid.HTJ2K, imagecodecs.htj2k_encode(grey, level=0.01, reversible=False), facts),
        "jpeg-xl lossy": (
            uid.UID("1.2.840.10008.1.2.4.112"),
            imagecodecs.jpegxl_encode(bytes_, level=90, usecontainer=False),
            byte_facts,
        ),
    }
    found |= {
        name: Stream(str(syntax), bytes(encoded), what) for name, (syntax, encoded, what) in lossy.items()
    }
    return found


# --- what becomes of them ----------------------------------------------------


def truncated(encoded: bytes, chance: random.Random) -> bytes:
    """The beginning of a stream; for half of them with the end that says all is there."""
    cut = encoded[: chance.randrange(len(encoded))]
    return cut + chance.choice([b"", encoded[-2:]])


def flipped(encoded: bytes, chance: random.Random) -> bytes:
    """One to eight bits changed, in the header more often than chance would."""
    damaged = bytearray(encoded)
    for _ in range(chance.choice([1, 1, 2, 8])):
        end = min(len(damaged), 120) if chance.random() < 0.4 else len(damaged)
        damaged[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def overwritten(encoded: bytes, chance: random.Random) -> bytes:
    """A run of bytes that belong elsewhere, or nowhere."""
    start, count = chance.randrange(len(encoded)), chance.randrange(1, 64)
    run = chance.choice([bytes(count), b"\xff" * count, chance.randbytes(count), encoded[:count]])
    return encoded[:start] + run + encoded[start + count :]


def claiming(encoded: bytes, chance: random.Random) -> bytes:
    """A number of the header replaced by an enormous one: sizes, counts, lengths."""
    damaged = bytearray(encoded)
    start = chance.randrange(min(len(damaged) - 4, 120))
    form = chance.choice([">H", "<H", ">L", "<L"])
    number = (
        chance.choice([0xFFFF, 0x7FFF, 0x8000]) if form[1] == "H" else chance.choice([0xFFFFFFFF, 0x7FFFFFFF])
    )
    struct.pack_into(form, damaged, start, number)
    return bytes(damaged)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (truncated, flipped, overwritten, claiming)


def damaged(stream: Stream, count: int, seed: int) -> Iterator[bytes]:
    """So many streams of each kind of damage."""
    for number, damage in enumerate(DAMAGES):
        chance = random.Random(f"{seed} {number}")
        for _ in range(count):
            yield damage(stream.encoded, chance)


# --- bombs -------------------------------------------------------------------


def enormous(stream: Stream) -> list[bytes]:
    """The stream with a header that claims 65535 x 65535, where it has one with a size."""
    size = struct.pack(">HH", stream.facts.rows, stream.facts.columns)
    wide = struct.pack(">LL", stream.facts.columns, stream.facts.rows)
    found = []
    for right, wrong in ((size, b"\xff\xff\xff\xff"), (wide, b"\0\0\xff\xff\0\0\xff\xff")):
        if right in stream.encoded[:200]:
            found.append(stream.encoded.replace(right, wrong))
    return found


def bombs() -> dict[str, Stream]:
    """Small frames that become enormous when they are believed."""
    grey = _facts()
    deflater = zlib.compressobj(9, wbits=-15)
    deflated = deflater.compress(bytes(1 << 28)) + deflater.flush()
    run = b"\x81\x00" * 100_000  # 12.8 MB of zeros in a segment
    rle = struct.pack("<16L", 2, 64, 64 + len(run), *[0] * 13) + run + run
    large = np.zeros((9_000, 9_000), np.uint8)  # 81 MB
    return {
        "deflated": Stream("1.2.840.10008.1.2.8.1", deflated, grey),
        "rle": Stream(str(uid.RLELossless), rle, grey),
        "jpeg": Stream(str(uid.JPEGBaseline8Bit), imagecodecs.jpeg8_encode(large), grey),
        "jpeg-ls": Stream(str(uid.JPEGLSLossless), imagecodecs.jpegls_encode(large), grey),
        "jpeg2000": Stream(
            str(uid.JPEG2000Lossless), imagecodecs.jpeg2k_encode(large, level=0, codecformat="j2k"), grey
        ),
        "htj2k": Stream(str(uid.HTJ2KLossless), imagecodecs.htj2k_encode(large, reversible=True), grey),
        "jpeg-xl": Stream(
            "1.2.840.10008.1.2.4.110", imagecodecs.jpegxl_encode(large, lossless=True, effort=1), grey
        ),
    }


# --- the process ---------------------------------------------------------------


def outcome(stream: Stream, encoded: bytes) -> str:
    """``decoded``, or why not; anything but the one error, or a frame of another size, is raised."""
    try:
        frame = codestreams.decode(encoded, stream.facts, stream.transfer_syntax_uid)
    except UnsupportedPixelData as error:
        return "refused" if str(error) else "refused without a word"
    assert frame.shape == stream.facts.frame_shape
    return "decoded"


def main(name: str, count: int, seed: int) -> None:
    if name == "bombs":
        _bombs()
        return
    stream = streams()[name]
    assert outcome(stream, stream.encoded) == "decoded"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = int(CPU_SECONDS_EACH * count * len(DAMAGES)) + 30
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    everything = chain(damaged(stream, count, seed), enormous(stream))
    found = Counter(outcome(stream, encoded) for encoded in everything)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"name": name, **found, "grown_bytes": grown}))


def _bombs() -> None:
    """Decode each bomb; they were made in another process, so that this one's memory is that of decoding."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        made = pool.apply(bombs)
    small = Stream(str(uid.JPEGLSLossless), b"", _facts())
    with contextlib.suppress(AssertionError):
        outcome(small, b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {name: outcome(stream, stream.encoded) for name, stream in made.items()}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({**found, "grown_bytes": grown}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
