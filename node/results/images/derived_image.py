"""Derived images: new series of the source's own SOP class (PS3.3 section C.7.6.1.1.2, Image Type DERIVED).

Values are stored as ``stored_values`` says. On the grid of the input each image refers to the one that it
was made of; on a grid of its own to those between which it lies.

A colour image of a source that has no colour is none of its kind: it becomes Secondary Captures, one for
each slice, with position, orientation and spacing, which viewers show and link as they do the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from models.types import DerivedImage, Findings
from node.errors import ResultImpossible
from node.results.concepts import code_dataset, coding_schemes
from node.results.facts import RunFacts
from node.results.given import AllGiven, Given
from node.results.header_values import as_decimal_string, numbers, text
from node.results.images.classes import ONE_FRAME, refuse_unless_held
from node.results.images.conditions import take_out_what_no_mr_asks_for
from node.results.images.derivation import (
    About,
    derivation,
    has_colour,
    image_type,
    rescale_type,
    set_pixels,
    set_window,
    window,
)
from node.results.images.derived_multi_frame import enhanced
from node.results.images.inheritance import acquisition_equipment, inherited, set_lossy, source_image_items
from node.results.images.pet import set_pet_series, set_pet_units
from node.results.images.planes import Plane, planes
from node.results.images.stored_values import Storing, storing
from node.results.laterality import set_laterality
from node.results.provenance import NOT_FOR_DIAGNOSIS, stamp
from node.results.uids import run_uid

_SHORT_TEXT = 1024
_WITH_FIXED_RESCALE = {
    DigitalMammographyXRayImageStorageForPresentation, DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing,
}  # fmt: skip
#: What a source may lack though it must not: of type 1 with the value that says least, of type 2 empty.
_REPAIRS: dict[str, dict[str, Any]] = {
    CTImageStorage: {"KVP": None, "AcquisitionNumber": None, "PatientPosition": None},
    MRImageStorage: {
        "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": None, "MRAcquisitionType": None,
        "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None, "PatientPosition": None,
    },
    PositronEmissionTomographyImageStorage: {
        "Units": "NONE", "CountsSource": "EMISSION", "SeriesType": ["WHOLE BODY", "IMAGE"],
        "DecayCorrection": "NONE", "CorrectedImage": None, "CollimatorType": None,
        "RadiopharmaceuticalInformationSequence": [], "ActualFrameDuration": 0, "FrameReferenceTime": 0,
        "AcquisitionDate": None, "AcquisitionTime": None, "PatientPosition": None,
    },
    SecondaryCaptureImageStorage: {"ConversionType": "WSD"},
}  # fmt: skip


@dataclass(frozen=True)
class _Series:
    """One derived image, with all that its instances share; ``base`` is its input."""

    image: DerivedImage
    index: int
    base: Given
    first: Given
    run: RunFacts

    @property
    def description(self) -> str:
        """What was done, for people."""
        card = self.run.card
        return f"{self.image.label or self.image.name}: made by {card.name} {card.version}"


def derived_images(findings: Findings, given: AllGiven, run: RunFacts) -> tuple[list[Dataset], list[str]]:
    """Return the instances of all derived images of kind ``"image"``, a series for each.

    With them come the reasons why others were not made: their source cannot hold them.

    Raises
    ------
    ValueError
        when an image is none, whatever its source
    """
    made: list[Dataset] = []
    reasons: list[str] = []
    for index, image in enumerate(one for one in findings.images if one.kind == "image"):
        series = _Series(image, index, given.on(image.on), given.first, run)
        try:
            made += _instances(series)
        except ResultImpossible as impossible:
            reasons.append(str(impossible))
    return made, reasons


def _instances(series: _Series) -> list[Dataset]:
    image, header = series.image, series.base.header
    placed = planes(image, series.base)
    is_colour = image.voxels.ndim == 4
    if is_colour and not has_colour(header.first):
        made = [_colour_capture(series, plane) for plane in placed]
    else:
        refuse_unless_held(image, placed, header)
        how = Storing("u1") if is_colour else _storing(image, header.instances[0].sop_class_uid)
        about = About(
            series.description + f"; {how.words}; {NOT_FOR_DIAGNOSIS}", derivation(image), how,
            *window(image, series.base.source), rescale_type(image),
        )  # fmt: skip
        if header.has_functional_groups:
            organization = run_uid(f"image {image.name} dimensions", series.first.source, series.run)
            made = [enhanced(image, placed, header, about, organization)]
        elif "NumberOfFrames" in header.first and image.affine is None:
            made = [_plain(series, placed, image.voxels, about)]
        else:
            made = [_plain(series, (plane,), image.voxels[plane.index], about) for plane in placed]
    for number, data_set in enumerate(made, 1):
        _finish(data_set, series, number)
    return made


def _storing(image: DerivedImage, class_uid: str) -> Storing:
    try:
        return storing(image.voxels, class_uid, image.name)
    except ValueError as error:
        raise ResultImpossible(str(error)) from error


def _finish(data_set: Dataset, series: _Series, number: int) -> None:
    set_lossy(data_set, series.base.header)
    name = series.image.name
    stamp(
        data_set, series.first.source, series.first.header, series.run, "image",
        what=f"image {name} {number}", number=number, series=f"image {name}", series_index=series.index,
        label=series.image.label or name,
    )  # fmt: skip
    data_set.ContributingEquipmentSequence.extend(acquisition_equipment(series.base.header))
    set_laterality(data_set)
    # An empty Anatomic Region says that it is not known (PS3.3 table 10-6).
    if data_set.get("AnatomicRegionSequence") == [] and "BodyPartExamined" in data_set:
        del data_set.BodyPartExamined
    if schemes := coding_schemes(data_set):
        data_set.CodingSchemeIdentificationSequence = schemes


def _plain(series: _Series, placed: tuple[Plane, ...], voxels: NDArray[Any], about: About) -> Dataset:
    """Return one instance without functional groups: one slice, or all frames of a multi-frame source."""
    header, plane = series.base.header, placed[0]
    template = _template(series, plane)
    class_uid = header.instances[0].sop_class_uid
    data_set = inherited(template)
    for keyword, value in _REPAIRS.get(class_uid, {}).items():
        if keyword not in data_set or (value and data_set.get(keyword) in (None, "")):
            setattr(data_set, keyword, value)
    data_set.SOPClassUID = class_uid
    data_set.Modality = header.modality
    data_set.ImageType = image_type(template, class_uid)
    _set_geometry(data_set, series, plane)
    if "NumberOfFrames" in template and (len(placed) > 1 or class_uid not in ONE_FRAME):
        data_set.NumberOfFrames = len(placed)
    is_colour = series.image.voxels.ndim == 4
    set_pixels(
        data_set,
        about.how.stored(voxels),
        is_colour=is_colour,
        is_inverse=text(template, "PhotometricInterpretation") == "MONOCHROME1",
    )
    if class_uid == PositronEmissionTomographyImageStorage:
        set_pet_series(data_set, series.image.voxels.shape[0], plane.index)
        set_pet_units(data_set, series.image)
    if class_uid == MRImageStorage:
        take_out_what_no_mr_asks_for(data_set)
    if not is_colour:
        _set_values(data_set, class_uid, about)
    data_set.DerivationDescription = about.description[:_SHORT_TEXT]
    data_set.DerivationCodeSequence = [code_dataset(about.code)]
    data_set.SourceImageSequence = source_image_items(
        one for each in placed for one in (each.sources if len(placed) == 1 else each.sources[:1])
    )
    return data_set


def _template(series: _Series, plane: Plane) -> Dataset:
    """Return the header of the nearest source image."""
    return series.base.source.data_sets[plane.sources[0].number]


def _set_geometry(data_set: Dataset, series: _Series, plane: Plane) -> None:
    if plane.is_placed or "FrameOfReferenceUID" in series.base.header.first:
        data_set.FrameOfReferenceUID = series.base.header.frame_of_reference_uid
        if "PositionReferenceIndicator" not in data_set:
            data_set.PositionReferenceIndicator = None
    if "PatientOrientationCodeSequence" in data_set and "PatientPosition" in data_set:
        # One or the other (PS3.3 section C.7.3.1).
        del data_set.PatientPosition
    if not plane.is_placed:
        # Half of a place is none.
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
            if keyword in data_set:
                delattr(data_set, keyword)
        # A type 2C of the General Image module, where there is no orientation.
        if "PatientOrientation" not in data_set:
            data_set.PatientOrientation = None
        return
    is_own = series.image.affine is not None
    for keyword, values in (
        ("ImagePositionPatient", plane.position_mm),
        ("ImageOrientationPatient", plane.orientation),
        ("PixelSpacing", plane.spacing_mm),
    ):
        # On the grid of the source its own digits stay, to the letter.
        if is_own or numbers(data_set, keyword) != tuple(values):
            setattr(data_set, keyword, [as_decimal_string(value) for value in values])
    if is_own or "SliceThickness" not in data_set:
        data_set.SliceThickness = (
            None if plane.thickness_mm is None else as_decimal_string(plane.thickness_mm)
        )
    if is_own:
        for keyword in ("SliceLocation", "SpacingBetweenSlices", "PatientOrientation", "TriggerTime"):
            if keyword in data_set:
                delattr(data_set, keyword)


def _set_values(data_set: Dataset, class_uid: str, about: About) -> None:
    """Set what takes stored values to real ones, and the window."""
    how = about.how
    if class_uid in _WITH_FIXED_RESCALE:
        data_set.RescaleIntercept, data_set.RescaleSlope, data_set.RescaleType = "0", "1", "US"
    elif not how.is_identity or class_uid in (CTImageStorage, PositronEmissionTomographyImageStorage):
        data_set.RescaleIntercept = as_decimal_string(how.intercept)
        data_set.RescaleSlope = as_decimal_string(how.slope)
        if class_uid != PositronEmissionTomographyImageStorage:
            data_set.RescaleType = about.rescale_type
    set_window(data_set, about)


def _colour_capture(series: _Series, plane: Plane) -> Dataset:
    """Return one slice of a colour image as a Secondary Capture with its place in the patient."""
    data_set = inherited(_template(series, plane))
    kept = ("Laterality", "PatientOrientation", "PatientPosition", "AcquisitionDate", "AcquisitionTime")
    for keyword in [element.keyword for element in data_set if element.keyword not in kept]:
        delattr(data_set, keyword)
    data_set.SOPClassUID = SecondaryCaptureImageStorage
    data_set.Modality = series.base.header.modality
    data_set.ConversionType = "WSD"
    data_set.ImageType = ["DERIVED", "SECONDARY"]
    _set_geometry(data_set, series, plane)
    if "PatientOrientation" not in data_set:
        data_set.PatientOrientation = None
    set_pixels(data_set, series.image.voxels[plane.index], is_colour=True)
    data_set.BurnedInAnnotation = "NO"
    data_set.DerivationDescription = f"{series.description}; {NOT_FOR_DIAGNOSIS}"[:_SHORT_TEXT]
    data_set.DerivationCodeSequence = [code_dataset(derivation(series.image))]
    data_set.SourceImageSequence = source_image_items(plane.sources)
    return data_set
