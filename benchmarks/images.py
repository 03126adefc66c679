"""The instances that are sent: made here, with a header and pixels like those of a chest CT."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGLSLossless,
    MRImageStorage,
)

from benchmarks import headers
from node.demo.phantom import ChestPhantom

Pixels = NDArray[np.uint16]

SLICES_OF_ONE_SHAPE = 4
_SLICE_NOISE_HU = 6.0
_CHEST_MM = 300.0


def fresh_uid() -> str:
    """A new UID of exactly 44 characters, so that one can take another's place in a file."""
    return f"2.25.{10**38 + secrets.randbelow(2**128 - 10**38)}"


@dataclass
class Series:
    """The files of one association, one series of one study.

    ``places`` holds, for each file, the offsets at which each kind of identifier is written.
    """

    folder: Path
    sop_class_uid: str
    transfer_syntax_uid: str
    paths: list[Path] = field(default_factory=list)
    places: list[dict[str, list[int]]] = field(default_factory=list)
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    patient_id: str = ""
    sop_instance_uids: list[str] = field(default_factory=list)

    def renew(self) -> None:
        """Give every instance, the series, the study and the patient new identifiers, in place."""
        self.study_instance_uid, self.series_instance_uid = fresh_uid(), fresh_uid()
        self.patient_id = f"BENCH-{secrets.randbelow(10**10):010}"
        shared = {
            "study": self.study_instance_uid,
            "series": self.series_instance_uid,
            "frame_of_reference": fresh_uid(),
            "patient": self.patient_id,
        }
        self.sop_instance_uids = [fresh_uid() for _ in self.paths]
        for path, places, instance in zip(self.paths, self.places, self.sop_instance_uids, strict=True):
            file = os.open(path, os.O_WRONLY)
            try:
                for kind, value in {**shared, "instance": instance}.items():
                    for offset in places[kind]:
                        os.pwrite(file, value.encode("ascii"), offset)
            finally:
                os.close(file)

    def copy(self, folder: Path) -> Series:
        """The same images as a series of its own in another folder."""
        folder.mkdir(parents=True)
        paths = [folder / path.name for path in self.paths]
        for source, target in zip(self.paths, paths, strict=True):
            target.write_bytes(source.read_bytes())
        copied = Series(folder, self.sop_class_uid, self.transfer_syntax_uid, paths, self.places)
        copied.renew()
        return copied


class Images:
    """Makes what is sent, each kind once; the files lie below ``folder``."""

    def __init__(self, folder: Path, pixel_source: Path | None = None, mr_source: Path | None = None) -> None:
        self._folder = folder
        self._pixel_source = pixel_source
        self._mr_source = mr_source
        self._slices: list[Pixels] = []
        self._series: dict[tuple[str, int], list[Series]] = {}

    def ct(
        self, associations: int, instances: int, transfer_syntax_uid: str = ExplicitVRLittleEndian
    ) -> list[Series]:
        """A series of CT images, 512 by 512 of 16 bit, for each association."""
        kind = f"ct-{UID(transfer_syntax_uid).keyword}"
        return self._of(kind, associations, instances, lambda: self._ct(kind, instances, transfer_syntax_uid))

    def scanned(self, instances: int) -> Series:
        """A series of CT images whose pixels are as a scanner made them, where there is a real one."""
        source = self._pixel_source
        if source is None:
            return self.ct(1, instances)[0]
        return self._of("scanned-ct", 1, instances, lambda: self._real("ct", source, instances))[0]

    def mr(self, instances: int) -> Series:
        """A series of MR images: real ones, or the phantom at a quarter of its size."""
        source = self._mr_source
        if source is not None:
            return self._of("mr", 1, instances, lambda: self._real("mr", source, instances))[0]
        return self._of("mr", 1, instances, lambda: self._mr(instances))[0]

    def whole(self, instances: int) -> list[Series]:
        """A CT and an MR series as they are, each image once; made ones are of so many."""
        numbers = [
            len(real_images(source)) if source else instances
            for source in (self._pixel_source, self._mr_source)
        ]
        return [self.scanned(numbers[0]), self.mr(numbers[1])]

    def small(self, associations: int, instances: int) -> list[Series]:
        """A series of Structured Reports of 2 KB for each association."""
        return self._of("small", associations, instances, lambda: self._small(instances))

    def _of(self, kind: str, associations: int, instances: int, make: Any) -> list[Series]:
        series = self._series.setdefault((kind, instances), [])
        while len(series) < associations:
            folder = self._folder / f"{kind}-{instances}" / f"{len(series):02}"
            series.append(series[0].copy(folder) if series else make())
        return series[:associations]

    def _ct(self, kind: str, instances: int, transfer_syntax_uid: str) -> Series:
        series = Series(self._folder / f"{kind}-{instances}" / "00", CTImageStorage, transfer_syntax_uid)
        series.folder.mkdir(parents=True)
        for number, pixels in enumerate(self._pixels(instances)):
            data_set = headers.ct(number, instances, pixels.shape)
            _write(series, data_set, pixels, number)
        series.renew()
        return series

    def _small(self, instances: int) -> Series:
        folder = self._folder / f"small-{instances}" / "00"
        folder.mkdir(parents=True)
        series = Series(folder, BasicTextSRStorage, ExplicitVRLittleEndian)
        for number in range(instances):
            _write(series, headers.report(number), None, number)
        series.renew()
        return series

    def _mr(self, instances: int) -> Series:
        series = Series(self._folder / f"mr-{instances}" / "00", MRImageStorage, ExplicitVRLittleEndian)
        series.folder.mkdir(parents=True)
        for number, pixels in enumerate(self._pixels(instances)):
            half = np.ascontiguousarray(pixels[::2, ::2])
            data_set = _as_mr(headers.ct(number, instances, half.shape))
            _write(series, data_set, half, number)
        series.renew()
        return series

    def _real(self, kind: str, folder: Path, instances: int) -> Series:
        sop_class_uid = CTImageStorage if kind == "ct" else MRImageStorage
        series = Series(
            self._folder / f"real-{kind}-{instances}" / "00", sop_class_uid, ExplicitVRLittleEndian
        )
        series.folder.mkdir(parents=True)
        images = real_images(folder)
        for number in range(instances):
            image = images[number % len(images)]
            data_set = headers.ct(number, instances, (image.Rows, image.Columns))
            if kind == "mr":
                data_set = _as_mr(data_set)
            for keyword in _HOW_PIXELS_ARE:
                setattr(data_set, keyword, image[keyword].value)
            data_set.add_new("PixelData", "OW", image.PixelData)
            _write(series, data_set, None, number)
        series.renew()
        return series

    def _pixels(self, instances: int) -> Iterator[Pixels]:
        """Pixels of each image: neighbours share a shape, and each has noise of its own."""
        shapes = self._shapes(math.ceil(instances / SLICES_OF_ONE_SHAPE))
        if self._pixel_source is not None:
            yield from (shapes[number % len(shapes)] for number in range(instances))
            return
        random = np.random.default_rng(20)
        noise = np.rint(random.normal(0.0, _SLICE_NOISE_HU, shapes[0].size)).astype(np.int32)
        for number in range(instances):
            shape = shapes[number // SLICES_OF_ONE_SHAPE]
            shifted = np.roll(noise, int(random.integers(shape.size))).reshape(shape.shape)
            yield np.clip(shape + shifted, 0, 4095).astype(np.uint16)

    def _shapes(self, count: int) -> list[Pixels]:
        if self._pixel_source is not None:
            self._slices = self._slices or real_slices(self._pixel_source)
            return self._slices
        if len(self._slices) != count:
            self._slices = phantom_slices(count)
        return self._slices


_HOW_PIXELS_ARE = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")


def _as_mr(data_set: Dataset) -> Dataset:
    data_set.SOPClassUID = MRImageStorage
    data_set.Modality = "MR"
    return data_set


def real_images(folder: Path) -> list[Dataset]:
    """Every image of one sample in ``folder``, with Pixel Data as it is without compression."""
    images: list[Dataset] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data_set = dcmread(path)
        if data_set.get("SamplesPerPixel") == 1:
            if data_set.file_meta.TransferSyntaxUID.is_compressed:
                data_set.decompress()
            images.append(data_set)
    if not images:
        raise SystemExit(f"{folder} holds no image of one sample; name a folder with one series")
    return images


def real_slices(folder: Path) -> list[Pixels]:
    """Pixels of every 512 by 512 image of 16 bit in ``folder``, as unsigned values of 12 bit."""
    slices = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data_set = dcmread(path)
        if (data_set.get("Rows"), data_set.get("Columns")) != (512, 512):
            continue
        stored = data_set.pixel_array.astype(np.int32)
        slope, intercept = float(data_set.RescaleSlope), float(data_set.RescaleIntercept)
        slices.append(np.clip(np.rint(stored * slope + intercept + 1024), 0, 4095).astype(np.uint16))
    if not slices:
        raise SystemExit(f"{folder} holds no CT image of 512 by 512; name a folder with one series")
    return slices


def phantom_slices(count: int) -> list[Pixels]:
    """``count`` slices through the whole chest phantom, feet first, with its noise."""
    workers = min(os.cpu_count() or 1, count)
    parts = [range(worker, count, workers) for worker in range(workers)]
    with ProcessPoolExecutor(workers) as pool:
        made = list(pool.map(_phantom_part, parts, [count] * workers))
    ordered = sorted((pair for part in made for pair in part), key=lambda pair: pair[0])
    return [pixels for _, pixels in ordered]


@dataclass(frozen=True)
class _OneSlice(ChestPhantom):
    """The phantom scanned at one height alone."""

    height_mm: float = 0.0

    def position(self, index: int) -> tuple[float, float, float]:
        """Centre of the first voxel, at this height."""
        x, y, _ = super().position(index)
        return x, y, self.height_mm


def _phantom_part(numbers: Sequence[int], count: int) -> list[tuple[int, Pixels]]:
    spacing_mm = (_CHEST_MM / count, 0.75, 0.75)
    made = []
    for number in numbers:
        height_mm = (number - (count - 1) / 2) * spacing_mm[0]
        phantom = _OneSlice(size=(1, 512, 512), spacing_mm=spacing_mm, seed=number, height_mm=height_mm)
        (image,) = phantom.slices()
        made.append((number, (image.astype(np.int32) + 1024).astype(np.uint16)))
    return made


def _encoded(pixels: Pixels, transfer_syntax_uid: str) -> bytes:
    """Value of Pixel Data in a transfer syntax."""
    if transfer_syntax_uid == ExplicitVRLittleEndian:
        return pixels.astype("<u2").tobytes()
    if transfer_syntax_uid == JPEGLSLossless:
        return encapsulate([bytes(imagecodecs.jpegls_encode(pixels))])
    if transfer_syntax_uid == HTJ2KLossless:
        return encapsulate([bytes(imagecodecs.htj2k_encode(pixels, reversible=True))])
    raise ValueError(f"nothing here encodes {UID(transfer_syntax_uid).name}")


def _write(series: Series, data_set: Dataset, pixels: Pixels | None, number: int) -> None:
    """Write one Part 10 file and note where its identifiers are."""
    if pixels is not None:
        data_set.PixelData = _encoded(pixels, series.transfer_syntax_uid)
        data_set["PixelData"].VR = "OW" if series.transfer_syntax_uid == ExplicitVRLittleEndian else "OB"
        data_set["PixelData"].is_undefined_length = series.transfer_syntax_uid != ExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(series.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(headers.PLACEHOLDERS["instance"])
    meta.TransferSyntaxUID = UID(series.transfer_syntax_uid)
    path = series.folder / f"{number:05}.dcm"
    file = FileDataset(str(path), data_set, file_meta=meta, preamble=b"\0" * 128)
    file.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    series.paths.append(path)
    series.places.append(
        {kind: list(_places(content, text.encode())) for kind, text in headers.PLACEHOLDERS.items()}
    )


def _places(content: bytes, text: bytes) -> Iterator[int]:
    offset = content.find(text)
    while offset >= 0:
        yield offset
        offset = content.find(text, offset + len(text))
