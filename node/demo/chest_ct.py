"""The phantom as a CT series: Explicit VR Little Endian files as a scanner would send them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from node.demo.phantom import ChestPhantom


def write_chest_ct(phantom: ChestPhantom, folder: Path, taken_at: datetime) -> Iterator[Path]:
    """Write one file for each slice into ``folder`` and yield its path (CT Image IOD, PS3.3 A.3)."""
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    for index, pixels in enumerate(phantom.slices()):
        instance = _instance(phantom, index, taken_at)
        instance.StudyInstanceUID = study
        instance.SeriesInstanceUID = series
        instance.FrameOfReferenceUID = frame_of_reference
        instance.SOPInstanceUID = generate_uid()
        instance.PixelData = (pixels.astype(np.int32) + 1024).astype("<u2").tobytes()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{index:04}.dcm"
        file = FileDataset(str(path), instance, file_meta=meta, preamble=b"\0" * 128)
        file.save_as(path, enforce_file_format=True)
        yield path


def _instance(phantom: ChestPhantom, index: int, taken_at: datetime) -> Dataset:
    dz, dy, dx = phantom.spacing_mm
    position = phantom.position(index)
    day, time = taken_at.strftime("%Y%m%d"), taken_at.strftime("%H%M%S")
    d = Dataset()
    d.SpecificCharacterSet = "ISO_IR 192"
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.SOPClassUID = CTImageStorage
    d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = day
    d.StudyTime = d.SeriesTime = d.AcquisitionTime = d.ContentTime = time
    d.AccessionNumber = "DEMO1"
    d.Modality = "CT"
    d.Manufacturer = "phantom"
    d.ManufacturerModelName = "closed-form chest"
    d.ReferringPhysicianName = ""
    d.StudyDescription = "Chest phantom of known geometry"
    d.SeriesDescription = "Chest 2.5 mm"
    d.PatientName = "Phantom^Chest"
    d.PatientID = "ANODE-DEMO"
    d.PatientBirthDate = ""
    d.PatientSex = "O"
    d.BodyPartExamined = "CHEST"
    d.SliceThickness = f"{dz:g}"
    d.KVP = "120"
    d.PatientPosition = "HFS"
    d.StudyID = "1"
    d.SeriesNumber = "2"
    d.AcquisitionNumber = "1"
    d.InstanceNumber = str(index + 1)
    d.ImagePositionPatient = [f"{value:.4f}" for value in position]
    d.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    d.PositionReferenceIndicator = ""
    d.SliceLocation = f"{position[2]:.4f}"
    d.SamplesPerPixel = 1
    d.PhotometricInterpretation = "MONOCHROME2"
    d.Rows, d.Columns = phantom.size[1], phantom.size[2]
    d.PixelSpacing = [f"{dy:g}", f"{dx:g}"]
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.RescaleIntercept, d.RescaleSlope, d.RescaleType = "-1024", "1", "HU"
    d.WindowCenter, d.WindowWidth = "-450", "1100"
    return d
