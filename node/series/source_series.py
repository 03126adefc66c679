"""The instances of a series as they are kept: headers at once, frames when they are asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.config.settings import LimitsConfig
from node.errors import IntegrityFailure, StorageFailure
from node.index.index import StoredInstance
from node.ingest.header import DEFLATED_TRANSFER_SYNTAXES, read_header
from node.services import Services
from node.transcode import pixel_data, pixels
from node.transcode.outgoing import Outgoing
from node.verification import note_damage


@dataclass(frozen=True)
class SourceInstance:
    """One instance: ``header`` is what stands before its pixels, ``frames`` decodes them anew each time.

    A frame is (row, column[, sample]) of stored values. ``frames`` raises UnsupportedPixelData
    when they cannot be decoded, StorageFailure or IntegrityFailure when they cannot be read.
    ``is_decodable`` is False for transfer syntaxes that are not decoded at all, such as video.
    """

    header: Dataset
    has_pixels: bool
    frames: Callable[[], Iterator[NDArray[Any]]]
    is_decodable: bool = True


def read(services: Services, instances: Sequence[StoredInstance]) -> list[SourceInstance]:
    """Read the headers of stored instances, in the order given.

    Raises StorageFailure, IntegrityFailure or MalformedDataSet.
    """
    return [_source(services, stored) for stored in instances]


def _source(services: Services, stored: StoredInstance) -> SourceInstance:
    limits = services.config.limits
    with _open(services, stored) as (file, transfer_syntax_uid):
        header = read_header(file, transfer_syntax_uid, limits)
    has_pixels = header.pixel_data_offset is not None or (
        # Of a deflated data set it is not known where the pixels are.
        transfer_syntax_uid in DEFLATED_TRANSFER_SYNTAXES and "BitsAllocated" in header.data_set
    )

    def frames() -> Iterator[NDArray[Any]]:
        with _open(services, stored) as (file, transfer_syntax_uid):
            yield from _frames(file, transfer_syntax_uid, limits)

    return SourceInstance(header.data_set, has_pixels, frames, pixels.is_decodable(transfer_syntax_uid))


def _frames(file: BinaryIO, transfer_syntax_uid: str, limits: LimitsConfig) -> Iterator[NDArray[Any]]:
    """Decode frame by frame, so that memory does not grow with the object."""
    with pixel_data.opened(file, transfer_syntax_uid, limits) as (header, value):
        yield from pixels.frames(header, transfer_syntax_uid, value, frame_bytes=limits.frame_bytes)


@contextmanager
def _open(services: Services, stored: StoredInstance) -> Iterator[tuple[BinaryIO, str]]:
    """Open a stored instance, checked; one that was settled since it was looked up is in the archive now."""
    try:
        data_set = _checked(services, stored)
    except (IntegrityFailure, StorageFailure) as error:
        with services.database.read() as connection:
            now = services.index.get(connection, stored.sop_instance_uid)
        if now is None or now.location == stored.location:
            note_damage(services, stored, str(error))
            raise
        stored = now
        data_set = _checked(services, stored)
    with io.BytesIO(data_set) if isinstance(data_set, bytes) else data_set as file:
        yield file, stored.stored_transfer_syntax_uid


def _checked(services: Services, stored: StoredInstance) -> BinaryIO | bytes:
    return Outgoing(services.storage, stored).data_set(stored.stored_transfer_syntax_uid)
