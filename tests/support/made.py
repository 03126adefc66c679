"""Synthetic data sets, small and without anybody's name, in any transfer syntax."""

from __future__ import annotations

import copy
import io
import struct
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.7"
BASIC_TEXT_SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88.11"

NATIVE_TRANSFER_SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
COMPRESSED_TRANSFER_SYNTAXES = (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless)


def instance(
    sop_class_uid: str = BASIC_TEXT_SR_STORAGE,
    *,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    **attributes: Any,
) -> Dataset:
    """A valid instance without pixels; ``attributes`` are set by keyword, None removes one."""
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.SOPClassUID = sop_class_uid
    data_set.SOPInstanceUID = sop_instance_uid or uid.generate_uid()
    data_set.StudyDate = "20240229"
    data_set.StudyTime = "101500"
    data_set.AccessionNumber = ""
    data_set.Modality = "OT"
    data_set.Manufacturer = "nobody"
    data_set.ReferringPhysicianName = ""
    data_set.PatientName = "Phantom^Test"
    data_set.PatientID = "PHANTOM-1"
    data_set.PatientBirthDate = ""
    data_set.PatientSex = "O"
    data_set.StudyInstanceUID = study_instance_uid or uid.generate_uid()
    data_set.SeriesInstanceUID = series_instance_uid or uid.generate_uid()
    data_set.StudyID = "1"
    data_set.SeriesNumber = 1
    data_set.InstanceNumber = 1
    return _with(data_set, attributes)


def ct_image(*, pixels: np.ndarray | None = None, **attributes: Any) -> Dataset:
    """A CT image in Hounsfield units.

    ``pixels`` is shape (row, column), int16; without it, a ramp of 16 by 16.
    """
    if pixels is None:
        pixels = (np.arange(256, dtype="<i2") * 7 - 1000).reshape(16, 16)
    uids = {key: attributes.pop(key) for key in list(attributes) if key.endswith("_instance_uid")}
    data_set = instance(CT_IMAGE_STORAGE, **uids)
    data_set.Modality = "CT"
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data_set.ImagePositionPatient = [0, 0, 0]
    data_set.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data_set.PixelSpacing = [0.7, 0.7]
    data_set.SliceThickness = 1.5
    data_set.RescaleIntercept = 0
    data_set.RescaleSlope = 1
    _set_pixels(data_set, pixels, "MONOCHROME2")
    return _with(data_set, attributes)


def colour_image(*, pixels: np.ndarray | None = None, planar: bool = False, **attributes: Any) -> Dataset:
    """An RGB Secondary Capture; ``pixels`` is shape (row, column, 3), uint8."""
    if pixels is None:
        pixels = np.arange(16 * 16 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)
    uids = {key: attributes.pop(key) for key in list(attributes) if key.endswith("_instance_uid")}
    data_set = instance(SECONDARY_CAPTURE_IMAGE_STORAGE, **uids)
    data_set.ConversionType = "SYN"
    _set_pixels(data_set, pixels, "RGB")
    if planar:
        data_set.PlanarConfiguration = 1
        data_set.PixelData = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    return _with(data_set, attributes)


def _with(data_set: Dataset, attributes: dict[str, Any]) -> Dataset:
    for keyword, value in attributes.items():
        if value is None:
            delattr(data_set, keyword)
        else:
            setattr(data_set, keyword, value)
    return data_set


def _set_pixels(data_set: Dataset, pixels: np.ndarray, photometric_interpretation: str) -> None:
    bits = pixels.dtype.itemsize * 8
    data_set.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    data_set.PhotometricInterpretation = photometric_interpretation
    if pixels.ndim == 3:
        data_set.PlanarConfiguration = 0
    data_set.Rows, data_set.Columns = pixels.shape[:2]
    data_set.BitsAllocated = data_set.BitsStored = bits
    data_set.HighBit = bits - 1
    data_set.PixelRepresentation = int(pixels.dtype.kind == "i")
    data_set["PixelData"] = _pixel_data(pixels.tobytes(), "OW" if bits > 8 else "OB")


def _pixel_data(value: bytes, vr: str) -> Any:
    holder = Dataset()
    holder.add_new(0x7FE00010, vr, value)
    return holder["PixelData"]


def part10(data_set: Dataset, transfer_syntax_uid: str = uid.ExplicitVRLittleEndian) -> bytes:
    """Encode a native data set as a Part 10 file in ``transfer_syntax_uid``."""
    data_set = copy.deepcopy(data_set)
    if transfer_syntax_uid in COMPRESSED_TRANSFER_SYNTAXES:
        _compress(data_set, transfer_syntax_uid)
    is_big_endian = transfer_syntax_uid == uid.ExplicitVRBigEndian
    if is_big_endian and "PixelData" in data_set and data_set.BitsAllocated == 16:
        data_set.PixelData = np.frombuffer(data_set.PixelData, "<u2").byteswap().tobytes()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = uid.UID(transfer_syntax_uid)
    data_set.file_meta.MediaStorageSOPClassUID = data_set.get("SOPClassUID") or "1.2"
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.get("SOPInstanceUID") or "1.2"
    file = io.BytesIO()
    dcmwrite(file, data_set, enforce_file_format=True)
    return file.getvalue()


def encoded(data_set: Dataset, transfer_syntax_uid: str = uid.ExplicitVRLittleEndian) -> bytes:
    """Encode a native data set as it travels: without file meta information."""
    file = part10(data_set, transfer_syntax_uid)
    return file[144 + struct.unpack_from("<L", file, 140)[0] :]


def _compress(data_set: Dataset, transfer_syntax_uid: str) -> None:
    """Encode the pixels of one frame without loss."""
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    kind = "i" if data_set.PixelRepresentation else "u"
    dtype = f"<{kind}{data_set.BitsAllocated // 8}"
    frame = np.frombuffer(data_set.PixelData, dtype).reshape(
        data_set.Rows, data_set.Columns, data_set.SamplesPerPixel
    )
    frame = frame.squeeze()
    if transfer_syntax_uid == uid.JPEGLSLossless:
        code = imagecodecs.jpegls_encode(frame.view(f"u{frame.itemsize}"))
    elif transfer_syntax_uid == uid.JPEG2000Lossless:
        code = imagecodecs.jpeg2k_encode(frame, level=0, reversible=True, codecformat="j2k", mct=True)
        if frame.ndim == 3:
            data_set.PhotometricInterpretation = "YBR_RCT"
    else:
        code = rle_frame(frame)
    data_set["PixelData"] = _pixel_data(encapsulate([code]), "OB")
    data_set["PixelData"].is_undefined_length = True


def rle_frame(frame: np.ndarray) -> bytes:
    """Encode as PS3.5 annex G: a header, then a PackBits segment for each byte plane."""
    planes = frame.reshape(frame.shape[0], frame.shape[1], -1)
    segments = []
    for sample in range(planes.shape[2]):
        octets = np.ascontiguousarray(planes[:, :, sample]).view(np.uint8)
        octets = octets.reshape(frame.shape[0], frame.shape[1], frame.itemsize)
        for byte in reversed(range(frame.itemsize)):
            rows = (imagecodecs.packbits_encode(row.tobytes()) for row in octets[:, :, byte])
            segment = b"".join(rows)
            segments.append(segment + b"\0" * (len(segment) % 2))
    offsets, position = [], 64
    for segment in segments:
        offsets.append(position)
        position += len(segment)
    header = struct.pack("<16L", len(segments), *offsets, *[0] * (15 - len(segments)))
    return header + b"".join(segments)
