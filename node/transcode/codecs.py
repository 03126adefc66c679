"""The lossless codecs: one entry for each transfer syntax in which instances are stored.

To add one, write its functions and an entry of ``CODECS``.
"""

from __future__ import annotations

import functools
import importlib.metadata
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from rle.rle import encode_frame as _rle_encode_frame  # type: ignore[import-not-found]

from node.transcode import htj2k
from node.transcode.codestreams import deflated_samples, jpeg_ls_samples, lossless_jpeg_samples
from node.transcode.facts import PixelFacts
from node.transcode.native import Words, packed_bits
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
        were zero and the code does not carry them, as copies of the sign. Bits Allocated 1 has a word
        for each bit, 0 or 1.
    photometric_interpretation : callable
        What is true of the encoded image (PS3.5 section 8.2).
    planar_configuration : int
        The same.
    parameters : mapping
        How the encoder is used, for the proof.
    """

    transfer_syntax_uid: str
    library: Callable[[], str]
    refuses: Callable[[PixelFacts], str]
    needs_clean_words: bool
    encode: Callable[[Words, PixelFacts], bytes]
    decode: Callable[[bytes, PixelFacts], Words]
    photometric_interpretation: Callable[[PixelFacts], str]
    planar_configuration: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)


def _as_it_is(facts: PixelFacts) -> str:
    # Chrominances that pixels shared have been repeated for each.
    return "YBR_FULL" if facts.is_subsampled else facts.photometric_interpretation


def _imagecodecs(version: Callable[[], str]) -> Callable[[], str]:
    return lambda: f"imagecodecs {imagecodecs.__version__} ({version()})"


def _refuses(facts: PixelFacts, *, most_bits: int) -> str:
    """What no code stream of the JPEG families takes."""
    if not 8 <= facts.bits_allocated <= most_bits:
        return f"{facts.bits_allocated} bits allocated"
    if facts.rows > 65535 or facts.columns > 65535:
        return "more than 65535 rows or columns"
    if facts.high_bit != facts.bits_stored - 1:
        return "High Bit is not below Bits Stored"
    return ""


def _as_signed(words: Words, facts: PixelFacts) -> NDArray[np.signedinteger[Any]]:
    """Signed samples of words of which the unused bits are zero or copies of the sign."""
    samples: NDArray[np.signedinteger[Any]] = words.view(words.dtype.str.replace("u", "i"))
    unused = facts.bits_allocated - facts.bits_stored
    return (samples << unused) >> unused if unused else samples


def _sign_extended(words: Words, facts: PixelFacts) -> Words:
    """Words whose unused bits are copies of the sign, so that who looks at whole words sees values."""
    return _as_signed(words, facts).view(words.dtype) if facts.is_signed else words


def _as_words(samples: NDArray[Any], facts: PixelFacts) -> Words:
    kind = "i" if facts.is_signed else "u"
    words: Words = samples.astype(f"{kind}{facts.bits_allocated // 8}", copy=False)
    return words.view(words.dtype.str.replace("i", "u"))


# --- RLE Lossless, PS3.5 annex G ---------------------------------------------


def _rle_library() -> str:
    return f"pylibjpeg-rle {importlib.metadata.version('pylibjpeg-rle')}"


def _rle_refuses(facts: PixelFacts) -> str:
    if facts.bits_allocated % 8:
        return f"{facts.bits_allocated} bits allocated"
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


# --- JPEG Lossless, ISO/IEC 10918-1 process 14 --------------------------------

_PREDICTORS = range(1, 8)
_TRIAL_ROWS = 64


def _jpeg_lossless_encode(words: Words, facts: PixelFacts, *, predictor: int = 1) -> bytes:
    # JPEG knows no sign: signed words go in at their full width, as two's complement. No colour space
    # is named, so the components are numbered, and no decoder transforms them.
    return bytes(
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(_sign_extended(words, facts)),
            lossless=True,
            predictor=predictor,
            bitspersample=_jpeg_precision(facts),
            colorspace="UNKNOWN" if facts.samples_per_pixel > 1 else None,
            outcolorspace="UNKNOWN" if facts.samples_per_pixel > 1 else None,
        )
    )


def _jpeg_precision(facts: PixelFacts) -> int:
    """Bits of a sample in the code: 8, 12 or 16, for which there are decoders everywhere.

    Never 8 for words of 16 bits: there are decoders that take what they gave for bytes then.
    """
    if facts.is_signed or facts.bits_allocated == 8:
        return facts.bits_allocated
    return 12 if facts.bits_stored <= 12 else 16


def _jpeg_lossless_encode_any_predictor(words: Words, facts: PixelFacts) -> bytes:
    middle = max(0, facts.rows // 2 - _TRIAL_ROWS // 2)
    strip = words[middle : middle + _TRIAL_ROWS]

    def length(predictor: int) -> int:
        return len(_jpeg_lossless_encode(strip, facts, predictor=predictor))

    return _jpeg_lossless_encode(words, facts, predictor=min(_PREDICTORS, key=length))


def _jpeg_lossless_decode(encoded: bytes, facts: PixelFacts) -> Words:
    words: Words = lossless_jpeg_samples(encoded).astype(f"u{facts.bits_allocated // 8}", copy=False)
    return words


# --- JPEG-LS Lossless, ISO/IEC 14495-1 ---------------------------------------


def _jpeg_ls_encode(words: Words, facts: PixelFacts) -> bytes:
    # At their full width: JPEG-LS knows no sign, and so every decoder gives back two's complement. DCMTK
    # writes signed and 12-bit pixels like this too.
    return bytes(imagecodecs.jpegls_encode(np.ascontiguousarray(_sign_extended(words, facts))))


def _jpeg_ls_decode(encoded: bytes, facts: PixelFacts) -> Words:
    del facts
    return jpeg_ls_samples(encoded)


# --- JPEG 2000 Lossless, ISO/IEC 15444-1, reversible 5/3 wavelet --------------

#: OpenJPEG computes with 32 bits, of which the wavelet and the colours take some.
_JPEG2000_BITS_STORED = 24


def _jpeg2000_refuses(facts: PixelFacts) -> str:
    if facts.bits_stored > _JPEG2000_BITS_STORED:
        return f"{facts.bits_stored} bits stored"
    return _refuses(facts, most_bits=32)


def _has_component_transform(facts: PixelFacts) -> bool:
    return facts.samples_per_pixel == 3 and facts.photometric_interpretation == "RGB"


def _jpeg2000_photometric_interpretation(facts: PixelFacts) -> str:
    return "YBR_RCT" if _has_component_transform(facts) else _as_it_is(facts)


def _jpeg2000_encode(words: Words, facts: PixelFacts) -> bytes:
    # Signed pixels as signed: taken for unsigned they would cost a quarter more.
    samples = _as_signed(words, facts) if facts.is_signed else words
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
    return _as_words(np.asarray(imagecodecs.jpeg2k_decode(encoded)), facts)


# --- High-Throughput JPEG 2000, ISO/IEC 15444-15, reversible 5/3 wavelet ------


def _htj2k_encode(words: Words, facts: PixelFacts, *, has_lengths: bool = False) -> bytes:
    samples = _as_signed(words, facts) if facts.is_signed else words
    return htj2k.encoded(
        samples, facts.bits_stored, has_colours=_has_component_transform(facts), has_lengths=has_lengths
    )


def _htj2k_decode(encoded: bytes, facts: PixelFacts) -> Words:
    return _as_words(htj2k.own_samples(encoded), facts)


# --- JPEG XL Lossless, ISO/IEC 18181-1 ----------------------------------------

_JPEG_XL_EFFORT = 4


def _jpeg_xl_encode(words: Words, facts: PixelFacts) -> bytes:
    # JPEG XL knows no sign either. The library takes samples of up to 8 bits as bytes alone.
    least_bits = 1 if facts.bits_allocated == 8 else 9
    return bytes(
        imagecodecs.jpegxl_encode(
            np.ascontiguousarray(_sign_extended(words, facts)),
            lossless=True,
            effort=_JPEG_XL_EFFORT,
            bitspersample=facts.bits_allocated if facts.is_signed else max(facts.bits_stored, least_bits),
            photometric="RGB" if facts.samples_per_pixel == 3 else "GRAY",
            usecontainer=False,
            numthreads=1,
        )
    )


def _jpeg_xl_decode(encoded: bytes, facts: PixelFacts) -> Words:
    words: Words = np.asarray(imagecodecs.jpegxl_decode(encoded, numthreads=1))
    return words.astype(f"u{facts.bits_allocated // 8}", copy=False)


# --- Deflated Image Frame Compression, PS3.5 section 8.2.16 -------------------

_DEFLATE_LEVEL = 9


def _deflated_refuses(facts: PixelFacts) -> str:
    return "" if facts.bits_allocated == 1 else f"{facts.bits_allocated} bits allocated"


def _deflated_encode(words: Words, facts: PixelFacts) -> bytes:
    del facts
    packer = zlib.compressobj(_DEFLATE_LEVEL, wbits=-zlib.MAX_WBITS)
    return packer.compress(packed_bits(words)) + packer.flush()


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
    "jpeg-lossless": Codec(
        transfer_syntax_uid=str(uid.JPEGLosslessSV1),
        library=_imagecodecs(imagecodecs.jpeg8_version),
        refuses=functools.partial(_refuses, most_bits=16),
        needs_clean_words=True,
        encode=_jpeg_lossless_encode,
        decode=_jpeg_lossless_decode,
        photometric_interpretation=_as_it_is,
        parameters={"predictor": 1},
    ),
    "jpeg-lossless-p14": Codec(
        transfer_syntax_uid=str(uid.JPEGLossless),
        library=_imagecodecs(imagecodecs.jpeg8_version),
        refuses=functools.partial(_refuses, most_bits=16),
        needs_clean_words=True,
        encode=_jpeg_lossless_encode_any_predictor,
        decode=_jpeg_lossless_decode,
        photometric_interpretation=_as_it_is,
        parameters={"predictor": "by trial, for each frame"},
    ),
    "jpeg-ls": Codec(
        transfer_syntax_uid=str(uid.JPEGLSLossless),
        library=_imagecodecs(imagecodecs.jpegls_version),
        refuses=functools.partial(_refuses, most_bits=16),
        needs_clean_words=True,
        encode=_jpeg_ls_encode,
        decode=_jpeg_ls_decode,
        photometric_interpretation=_as_it_is,
        parameters={"near": 0},
    ),
    "jpeg2000": Codec(
        transfer_syntax_uid=str(uid.JPEG2000Lossless),
        library=_imagecodecs(imagecodecs.jpeg2k_version),
        refuses=_jpeg2000_refuses,
        needs_clean_words=True,
        encode=_jpeg2000_encode,
        decode=_jpeg2000_decode,
        photometric_interpretation=_jpeg2000_photometric_interpretation,
        parameters={"wavelet": "5/3"},
    ),
    "htj2k": Codec(
        transfer_syntax_uid=str(uid.HTJ2KLossless),
        library=_imagecodecs(imagecodecs.htj2k_version),
        # OpenJPEG, which others decode with, has no more than 16 bits here.
        refuses=functools.partial(_refuses, most_bits=16),
        needs_clean_words=True,
        encode=_htj2k_encode,
        decode=_htj2k_decode,
        photometric_interpretation=_jpeg2000_photometric_interpretation,
        parameters={"wavelet": "5/3", "progression": "RPCL"},
    ),
    "htj2k-rpcl": Codec(
        transfer_syntax_uid=str(uid.HTJ2KLosslessRPCL),
        library=_imagecodecs(imagecodecs.htj2k_version),
        refuses=functools.partial(_refuses, most_bits=16),
        needs_clean_words=True,
        encode=functools.partial(_htj2k_encode, has_lengths=True),
        decode=_htj2k_decode,
        photometric_interpretation=_jpeg2000_photometric_interpretation,
        parameters={"wavelet": "5/3", "progression": "RPCL", "tile-part lengths": True},
    ),
    "jpeg-xl": Codec(
        transfer_syntax_uid="1.2.840.10008.1.2.4.110",
        library=_imagecodecs(imagecodecs.jpegxl_version),
        refuses=functools.partial(_refuses, most_bits=16),
        needs_clean_words=True,
        encode=_jpeg_xl_encode,
        decode=_jpeg_xl_decode,
        photometric_interpretation=_as_it_is,
        parameters={"effort": _JPEG_XL_EFFORT},
    ),
    "deflated-frame": Codec(
        transfer_syntax_uid="1.2.840.10008.1.2.8.1",
        library=lambda: f"zlib {zlib.ZLIB_RUNTIME_VERSION}",
        refuses=_deflated_refuses,
        needs_clean_words=False,
        encode=_deflated_encode,
        decode=deflated_samples,
        photometric_interpretation=_as_it_is,
        parameters={"level": _DEFLATE_LEVEL},
    ),
}
"""By the name that the configuration uses; ``keep`` and ``best`` are none of them."""


def by_name(name: str) -> Codec:
    """Return the codec that a rule or a proof calls ``name``; KeyError for an unknown one."""
    return CODECS[name]
