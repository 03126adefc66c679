"""Reads one frame of an instance, no larger than it is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.config.settings import LimitsConfig
from node.errors import UnsupportedPixelData
from node.transcode import pixel_data, pixels, reduced
from node.transcode.facts import PixelFacts, facts_of


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes
    ----------
    samples : ndarray
        (row, column) or (row, column, sample) of stored values; each side is that of the image divided by
        ``2 ** levels``.
    facts : PixelFacts
        Of the whole frame as it comes out of the decoder.
    header : Dataset
        All elements of the instance but its pixels.
    number : int
        Counted from 1.
    levels : int
        How often it was halved.
    """

    samples: NDArray[Any]
    facts: PixelFacts
    header: Dataset
    number: int
    levels: int


def read_frame(
    data_set: BinaryIO,
    transfer_syntax_uid: str,
    number: int,
    limits: LimitsConfig,
    *,
    longest_side: int | None = None,
) -> Frame:
    """Decode one frame of a data set.

    Parameters
    ----------
    data_set : BinaryIO
        Encoded as ``transfer_syntax_uid`` says, without file meta information.
    number : int
        Of the frame, from 1.
    limits : LimitsConfig
        Of what is decoded.
    longest_side : int, optional
        In pixels: the frame is halved as long as its longer side stays as long. Of JPEG 2000 and HTJ2K only
        the wavelet's levels that are needed are decoded; of all others a pyramid is computed.

    Raises
    ------
    UnsupportedPixelData
        There is no such frame, or it cannot be decoded.
    MalformedDataSet, LimitExceeded
        The data set cannot be walked.
    """
    with pixel_data.opened(data_set, transfer_syntax_uid, limits) as (header, value):
        return _frame(header, transfer_syntax_uid, value, number, limits, longest_side)


def _frame(
    header: Dataset,
    transfer_syntax_uid: str,
    value: BinaryIO,
    number: int,
    limits: LimitsConfig,
    longest_side: int | None,
) -> Frame:
    facts = facts_of(header, frame_bytes=limits.frame_bytes)
    if not 1 <= number <= facts.number_of_frames:
        raise UnsupportedPixelData(f"there is no frame {number}: the image has {facts.number_of_frames}")
    levels = _levels(facts, longest_side)
    decoded = pixels.decoded(
        header,
        transfer_syntax_uid,
        value,
        frame_bytes=limits.frame_bytes,
        decode=lambda encoded, facts, uid: reduced.decode(encoded, facts, uid, levels),
        skip=number - 1,
    )
    samples = next(islice(decoded.frames, 1), None)
    if samples is None:
        raise UnsupportedPixelData(f"frame {number} is not there")
    rows, columns = (-(-side // 2**levels) for side in (facts.rows, facts.columns))
    while samples.shape[0] > rows or samples.shape[1] > columns:
        samples = reduced.halved(samples, decoded.facts)
    return Frame(np.asarray(samples), decoded.facts, header, number, levels)


def _levels(facts: PixelFacts, longest_side: int | None) -> int:
    levels = 0
    if longest_side is not None:
        while max(facts.rows, facts.columns) // 2 ** (levels + 1) >= max(longest_side, 1):
            levels += 1
    return levels
