"""What a JPEG XL stream says of its size, before anything is decoded (ISO/IEC 18181-1 annex D)."""

from __future__ import annotations

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_BOX_HEAD_BYTES = 8
_PARTIAL_HEAD_BYTES = 4
#: Enough for the longest size header behind its signature.
_HEADER_BYTES = 16
_LENGTHS = (9, 13, 18, 30)
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def size(encoded: bytes) -> tuple[int, int]:
    """(rows, columns) of the image, before an orientation is applied.

    Raises ValueError where there is no stream, or its header is cut short.
    """
    bits = _Bits(_codestream(encoded)[len(_CODESTREAM) :])
    is_small = bits.take(1) == 1
    rows = _side(bits, is_small=is_small)
    ratio = bits.take(3)
    if ratio == 0:
        return rows, _side(bits, is_small=is_small)
    numerator, denominator = _RATIOS[ratio]
    return rows, rows * numerator // denominator


def _side(bits: _Bits, *, is_small: bool) -> int:
    if is_small:
        return (bits.take(5) + 1) * 8
    return bits.take(_LENGTHS[bits.take(2)]) + 1


def _codestream(encoded: bytes) -> bytes:
    """The beginning of the code stream, which may be the content of boxes (ISO/IEC 18181-2)."""
    if encoded.startswith(_CODESTREAM):
        return encoded[:_HEADER_BYTES]
    if not encoded.startswith(_CONTAINER):
        raise ValueError("there is no JPEG XL stream")
    position = len(_CONTAINER)
    while position + _BOX_HEAD_BYTES <= len(encoded):
        length = int.from_bytes(encoded[position : position + 4], "big")
        kind = encoded[position + 4 : position + 8]
        start = position + _BOX_HEAD_BYTES + (8 if length == 1 else 0)
        if kind in (b"jxlc", b"jxlp"):
            start += _PARTIAL_HEAD_BYTES if kind == b"jxlp" else 0
            found = encoded[start : start + _HEADER_BYTES]
            if found.startswith(_CODESTREAM):
                return found
            break
        if length == 1:
            length = int.from_bytes(encoded[position + 8 : position + 16], "big")
        if length < _BOX_HEAD_BYTES:
            break
        position += length
    raise ValueError("there is no code stream in the JPEG XL container")


class _Bits:
    """Reads numbers from the least significant bit on."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")
        self._count = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._count:
            raise ValueError("the JPEG XL header is cut short")
        taken = self._left & ((1 << count) - 1)
        self._left >>= count
        self._count -= count
        return taken
