"""The instances of a series as they are kept: headers at once, frames when they are asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.config.settings import LimitsConfig
from node.errors import IntegrityFailure, StorageFailure
from node.index.index import StoredInstance
from node.ingest.header import DEFLATED_TRANSFER_SYNTAXES, read_header
from node.sending import dicom_files
from node.series.header_values import text
from node.storage.storage import Storage
from node.transcode import pixel_data, pixels
from node.transcode.outgoing import Outgoing

_LIMITS = LimitsConfig()


@dataclass(frozen=True)
class SourceInstance:
    """One instance: ``header`` is what stands before its pixels, ``frames`` decodes them anew each time.

    A frame is (row, column[, sample]) of stored values. ``frames`` raises UnsupportedPixelData
    when they cannot be decoded, StorageFailure or IntegrityFailure when they cannot be read.
    ``is_decodable`` is False for transfer syntaxes that are not decoded at all, such as video.
    ``colours`` says in which Photometric Interpretation the frames come out, where that may be another
    than the header has: a decoder may have changed it.
    """

    header: Dataset
    has_pixels: bool
    frames: Callable[[], Iterator[NDArray[Any]]]
    is_decodable: bool = True
    colours: Callable[[], str] | None = None

    @property
    def photometric_interpretation(self) -> str:
        """Of the frames; raises as ``frames`` does."""
        return self.colours() if self.colours is not None else text(self.header, "PhotometricInterpretation")


@dataclass(frozen=True)
class Holdings:
    """Where stored instances are read from.

    ``look_again`` is asked with an instance that cannot be read, and the problem: it gives the instance as it
    is now, None when that is no other.
    """

    storage: Storage
    limits: LimitsConfig
    look_again: Callable[[StoredInstance, str], StoredInstance | None]


def read(holdings: Holdings, instances: Sequence[StoredInstance]) -> list[SourceInstance]:
    """Read the headers of stored instances, in the order given.

    Raises StorageFailure, IntegrityFailure or MalformedDataSet.
    """
    return [_source(partial(_open, holdings, stored), holdings.limits) for stored in instances]


def from_file(path: Path, limits: LimitsConfig = _LIMITS) -> SourceInstance:
    """Read the header of a DICOM file, as ``read`` does of a stored instance; no node is needed.

    Raises MalformedDataSet, also for what is no DICOM file (``node.sending.dicom_files.NotDicom``), or
    LimitExceeded or InvalidUid.
    """
    file = dicom_files.read(path)

    @contextmanager
    def opened() -> Iterator[tuple[BinaryIO, str]]:
        try:
            data_set = dicom_files.open_data_set(file)
        except OSError as error:
            raise StorageFailure(f"{path} cannot be read: {error.strerror}") from error
        with data_set:
            yield data_set, file.transfer_syntax_uid

    return _source(opened, limits)


def from_files(paths: Iterable[Path], limits: LimitsConfig = _LIMITS) -> list[SourceInstance]:
    """Read the headers of DICOM files, as ``from_file`` does."""
    return [from_file(path, limits) for path in paths]


def _source(
    opened: Callable[[], AbstractContextManager[tuple[BinaryIO, str]]], limits: LimitsConfig
) -> SourceInstance:
    """Read the header of the data set that ``opened`` gives, with its transfer syntax."""
    with opened() as (file, transfer_syntax_uid):
        header = read_header(file, transfer_syntax_uid, limits)
    has_pixels = header.pixel_data_offset is not None or (
        # Of a deflated data set it is not known where the pixels are.
        transfer_syntax_uid in DEFLATED_TRANSFER_SYNTAXES and "BitsAllocated" in header.data_set
    )

    @contextmanager
    def decoded() -> Iterator[pixels.Decoded]:
        with (
            opened() as (file, transfer_syntax_uid),
            pixel_data.opened(file, transfer_syntax_uid, limits) as (header, value),
        ):
            yield pixels.decoded(header, transfer_syntax_uid, value, frame_bytes=limits.frame_bytes)

    def frames() -> Iterator[NDArray[Any]]:
        # Frame by frame, so that memory does not grow with the object.
        with decoded() as found:
            yield from found.frames

    def colours() -> str:
        with decoded() as found:
            return found.facts.photometric_interpretation

    return SourceInstance(
        header.data_set, has_pixels, frames, pixels.is_decodable(transfer_syntax_uid), colours
    )


@contextmanager
def _open(holdings: Holdings, stored: StoredInstance) -> Iterator[tuple[BinaryIO, str]]:
    """Open a stored instance, checked; one that was settled since it was looked up is in the archive now."""
    try:
        data_set = _checked(holdings, stored)
    except (IntegrityFailure, StorageFailure) as error:
        now = holdings.look_again(stored, str(error))
        if now is None:
            raise
        stored = now
        data_set = _checked(holdings, stored)
    with io.BytesIO(data_set) if isinstance(data_set, bytes) else data_set as file:
        yield file, stored.stored_transfer_syntax_uid


def _checked(holdings: Holdings, stored: StoredInstance) -> BinaryIO | bytes:
    return Outgoing(holdings.storage, stored).data_set(stored.stored_transfer_syntax_uid)
