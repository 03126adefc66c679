"""The lossless codecs: one entry for each transfer syntax in which instances are stored.

To add one, write its functions and an entry of ``CODECS``.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np
from pydicom import uid
from rle.rle import encode_frame as _rle_encode_frame  # type: ignore[import-not-found]

from node.transcode.codestreams import jpeg_ls_samples
from node.transcode.facts import PixelFacts
from node.transcode.native import Words
from node.transcode.rle import rle_words


@dataclass(frozen=True)
class Codec:
    """A lossless codec for one transfer syntax.

    Attributes
    ----------
    transfer_syntax_uid : str
        In which its frames are.
    library : callable
        Name and version of what encodes.
    refuses : callable
        Why pixels of these facts cannot be encoded so that every decoder gives them back; empty
        where they can.
    needs_clean_words : bool
        Whether the unused bits of all words must be zero or copies of the sign.
    encode, decode : callable
        A frame of words, (rows, columns) or (rows, columns, samples), to its code and back. Unused
        bits come back as ``PixelFacts`` says they are, see ``node/transcode/native.py``: where they
        were zero and the code does not carry them, as copies of the sign.
    photometric_interpretation, planar_configuration : callable
        What is true of the encoded image (PS3.5 section 8.2).
    """

    transfer_syntax_uid: str
    library: Callable[[], str]
    refuses: Callable[[PixelFacts], str]
    needs_clean_words: bool
    encode: Callable[[Words, PixelFacts], bytes]
    decode: Callable[[bytes, PixelFacts], Words]
    photometric_interpretation: Callable[[PixelFacts], str]
    planar_configuration: int


def _as_it_is(facts: PixelFacts) -> str:
    return facts.photometric_interpretation


def _refuses_sizes(facts: PixelFacts) -> str:
    """What no code stream of the JPEG families takes."""
    if facts.rows > 65535 or facts.columns > 65535:
        return "more than 65535 rows or columns"
    if facts.high_bit != facts.bits_stored - 1:
        return "High Bit is not below Bits Stored"
    return ""


# --- RLE Lossless, PS3.5 annex G ---------------------------------------------


def _rle_library() -> str:
    return f"pylibjpeg-rle {importlib.metadata.version('pylibjpeg-rle')}"


def _rle_refuses(facts: PixelFacts) -> str:
    segments = facts.samples_per_pixel * facts.bits_allocated // 8
    return "more than 15 segments" if segments > 15 else ""


def _rle_encode(words: Words, facts: PixelFacts) -> bytes:
    encoded: bytes = _rle_encode_frame(
        np.ascontiguousarray(words).tobytes(),
        facts.rows,
        facts.columns,
        facts.samples_per_pixel,
        facts.bits_allocated,
        "<",
    )
    return encoded


# --- JPEG-LS Lossless, ISO/IEC 14495-1 ---------------------------------------


def _jpeg_ls_library() -> str:
    return f"imagecodecs {imagecodecs.__version__} ({imagecodecs.jpegls_version()})"


def _jpeg_ls_refuses(facts: PixelFacts) -> str:
    return _refuses_sizes(facts)


def _jpeg_ls_encode(words: Words, facts: PixelFacts) -> bytes:
    # The words as they are, unused bits included: JPEG-LS knows no sign, and so every decoder gives
    # back two's complement of the full width. DCMTK writes signed and 12-bit pixels like this too.
    del facts
    return bytes(imagecodecs.jpegls_encode(np.ascontiguousarray(words)))


def _jpeg_ls_decode(encoded: bytes, facts: PixelFacts) -> Words:
    del facts
    return jpeg_ls_samples(encoded)


# --- JPEG 2000 Lossless, ISO/IEC 15444-1, reversible 5/3 wavelet --------------


def _jpeg2000_library() -> str:
    return f"imagecodecs {imagecodecs.__version__} ({imagecodecs.jpeg2k_version()})"


def _has_component_transform(facts: PixelFacts) -> bool:
    return facts.samples_per_pixel == 3 and facts.photometric_interpretation == "RGB"


def _jpeg2000_photometric_interpretation(facts: PixelFacts) -> str:
    return "YBR_RCT" if _has_component_transform(facts) else facts.photometric_interpretation


def _jpeg2000_encode(words: Words, facts: PixelFacts) -> bytes:
    # Signed pixels as signed: taken for unsigned they would cost a quarter more.
    samples = words.view(words.dtype.str.replace("u", "i")) if facts.is_signed else words
    unused = facts.bits_allocated - facts.bits_stored
    if facts.is_signed and unused:
        samples = (samples << unused) >> unused
    return bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(samples),
            level=0,
            codecformat="j2k",
            reversible=True,
            bitspersample=facts.bits_stored,
            mct=_has_component_transform(facts),
        )
    )


def _jpeg2000_decode(encoded: bytes, facts: PixelFacts) -> Words:
    samples = np.asarray(imagecodecs.jpeg2k_decode(encoded))
    kind = "i" if facts.is_signed else "u"
    words: Words = samples.astype(f"{kind}{facts.bits_allocated // 8}", copy=False)
    return words.view(words.dtype.str.replace("i", "u"))


CODECS: dict[str, Codec] = {
    "rle": Codec(
        transfer_syntax_uid=str(uid.RLELossless),
        library=_rle_library,
        refuses=_rle_refuses,
        needs_clean_words=False,
        encode=_rle_encode,
        decode=rle_words,
        photometric_interpretation=_as_it_is,
        planar_configuration=1,
    ),
    "jpeg-ls": Codec(
        transfer_syntax_uid=str(uid.JPEGLSLossless),
        library=_jpeg_ls_library,
        refuses=_jpeg_ls_refuses,
        needs_clean_words=True,
        encode=_jpeg_ls_encode,
        decode=_jpeg_ls_decode,
        photometric_interpretation=_as_it_is,
        planar_configuration=0,
    ),
    "jpeg2000": Codec(
        transfer_syntax_uid=str(uid.JPEG2000Lossless),
        library=_jpeg2000_library,
        refuses=_refuses_sizes,
        needs_clean_words=True,
        encode=_jpeg2000_encode,
        decode=_jpeg2000_decode,
        photometric_interpretation=_jpeg2000_photometric_interpretation,
        planar_configuration=0,
    ),
}
"""By the name that the configuration uses; ``keep`` is none of them."""


def by_name(name: str) -> Codec:
    """Return the codec that ``[transcode] to`` or a proof calls ``name``; KeyError for an unknown one."""
    return CODECS[name]
