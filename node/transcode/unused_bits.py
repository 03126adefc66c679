"""What stands in the bits between Bits Stored and Bits Allocated (PS3.5 section 8.1.1)."""

from __future__ import annotations

import numpy as np

from node.errors import UnsupportedPixelData
from node.transcode.facts import PixelFacts
from node.transcode.native import Words

ZERO = "zero"
SIGN = "sign"
AS_CODED = "as coded"


class UnusedBits:
    """Watches the words of an image for what their unused bits are.

    Their ``kind`` is ``sign``: copies of the sign, of which unsigned words have none, so zero; or
    ``zero``: zero above a negative value, too.
    """

    def __init__(self, facts: PixelFacts) -> None:
        self._facts = facts
        self._is_zero = self._is_sign = True

    @property
    def kind(self) -> str:
        """What they were in every frame seen."""
        return SIGN if self._is_sign else ZERO

    def see(self, words: Words) -> None:
        """Look at a frame; raise UnsupportedPixelData when the unused bits hold something else."""
        bits = self._facts.bits_stored
        if bits == self._facts.bits_allocated:
            return
        is_zero = int(words.max()) < 1 << bits
        if self._facts.is_signed:
            samples = words.view(words.dtype.str.replace("u", "i"))
            half = 1 << (bits - 1)
            self._is_sign &= -half <= int(samples.min()) and int(samples.max()) < half
        else:
            self._is_sign &= is_zero
        self._is_zero &= is_zero
        if not (self._is_zero or self._is_sign):
            raise UnsupportedPixelData("the bits above Bits Stored are in use")


def restored(words: Words, facts: PixelFacts, kind: str) -> Words:
    """Words with the unused bits as they were; ``kind`` as ``UnusedBits`` found it."""
    if kind == ZERO and facts.bits_stored < facts.bits_allocated:
        return words & np.asarray((1 << facts.bits_stored) - 1, words.dtype)
    return words
