"""A stored data set opened for its pixels: the header, and where the value of Pixel Data begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pydicom.dataset import Dataset

from node.config.settings import LimitsConfig
from node.errors import UnsupportedPixelData
from node.ingest.elements import PIXEL_DATA_TAGS
from node.ingest.header import DEFLATED_TRANSFER_SYNTAXES, data_set_without_pixels, inflate, walk
from node.transcode.spool import spool


@contextmanager
def plain(data_set: BinaryIO, transfer_syntax_uid: str, limits: LimitsConfig) -> Iterator[BinaryIO]:
    """The data set itself; where its transfer syntax deflates it, inflated in a temporary file.

    Raises MalformedDataSet or LimitExceeded when it cannot be inflated.
    """
    if transfer_syntax_uid not in DEFLATED_TRANSFER_SYNTAXES:
        yield data_set
        return
    with spool() as inflated:
        inflate(data_set, limits, keep_bytes=limits.instance_bytes, into=inflated)
        yield inflated


@contextmanager
def opened(
    data_set: BinaryIO, transfer_syntax_uid: str, limits: LimitsConfig
) -> Iterator[tuple[Dataset, BinaryIO]]:
    """Give the header, which is all elements but the pixels, and a file at the value of Pixel Data.

    Raises
    ------
    UnsupportedPixelData
        There are no pixels.
    MalformedDataSet, LimitExceeded
        The data set cannot be walked.
    """
    with plain(data_set, transfer_syntax_uid, limits) as file:
        elements = walk(file, transfer_syntax_uid, max_depth=limits.nesting_depth)
        place = next((one for one in elements.elements() if one.tag in PIXEL_DATA_TAGS), None)
        if place is None:
            raise UnsupportedPixelData("the instance has no pixels")
        yield data_set_without_pixels(elements), elements.file_at(place.value_offset)
