"""Maps of a quantity: Parametric Map Storage with floating-point values (PS3.3 section A.75)."""

from __future__ import annotations

import numpy as np
from highdicom import (
    PixelMeasuresSequence,
    PlaneOrientationSequence,
    PlanePositionSequence,
    VOILUTTransformation,
)
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from models.types import Code, DerivedImage, Findings
from node.errors import ResultImpossible
from node.results.concepts import code_dataset, coding_schemes, concept
from node.results.evidence import placed_images
from node.results.facts import RunFacts
from node.results.given import AllGiven
from node.results.grid import lie_apart
from node.results.header_values import as_decimal_string
from node.results.images.derivation import derivation, value_range
from node.results.images.inheritance import acquisition_equipment, set_lossy, source_image_items
from node.results.images.planes import Plane, planes
from node.results.laterality import set_laterality
from node.results.provenance import NOT_FOR_DIAGNOSIS, device_serial_number, stamp
from node.results.references import set_references
from node.results.source_header import SourceHeader
from node.results.uids import run_uid

_MAX_LONG_STRING, _MAX_SHORT_STRING = 64, 16


class _Map(ParametricMap):
    """Leaves patient and study to ``stamp``: the library copies them by SOP class, and knows not all."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Copy nothing."""

    def copy_specimen_information(self, dataset: Dataset) -> None:
        """Copy nothing."""


def parametric_maps(findings: Findings, given: AllGiven, run: RunFacts) -> tuple[list[Dataset], list[str]]:
    """Return a Parametric Map for each image of kind ``"map"``, all in one series.

    With them come the reasons why others were not made: their source cannot hold them.

    Values are Float Pixel Data, or Double Float Pixel Data where they came as float64, and are the real
    values; Real World Value Mapping (PS3.3 section C.7.6.16.2.11) says of what, and in which unit.

    Raises
    ------
    ValueError
        when a map is on a grid that no image can have
    """
    made: list[Dataset] = []
    reasons: list[str] = []
    source, header = given.first.source, given.first.header
    for number, image in enumerate((one for one in findings.images if one.kind == "map"), 1):
        one = given.on(image.on)
        own = one.header
        try:
            placed = planes(image, one)
            _refuse_unless_held(image, placed)
        except ResultImpossible as impossible:
            reasons.append(str(impossible))
            continue
        data_set = _map(image, placed, own, run)
        set_lossy(data_set, own)
        stamp(data_set, source, header, run, "pm", what=f"pm {image.name}", number=number)
        data_set.ContributingEquipmentSequence.extend(acquisition_equipment(own))
        _refer(data_set, placed, image, header)
        set_laterality(data_set, own.laterality)
        organization = run_uid(f"pm {image.name} dimensions", source, run)
        for item in (*data_set.DimensionOrganizationSequence, *data_set.DimensionIndexSequence):
            item.DimensionOrganizationUID = organization
        if schemes := coding_schemes(data_set):
            data_set.CodingSchemeIdentificationSequence = schemes
        made.append(data_set)
    return made, reasons


def _refuse_unless_held(image: DerivedImage, placed: tuple[Plane, ...]) -> None:
    if not placed[0].is_placed:
        raise ResultImpossible(
            f"the map {image.name} is on an image without one place in the patient, which a Parametric Map "
            "needs; give it as an image or as a picture"
        )
    if not lie_apart([one.position_mm for one in placed]):
        raise ResultImpossible(
            f"the map {image.name} has several frames in one place, which a Parametric Map cannot have; "
            "give it as an image or as a picture"
        )


def _map(image: DerivedImage, placed: tuple[Plane, ...], header: SourceHeader, run: RunFacts) -> Dataset:
    values = image.voxels
    if values.dtype not in (np.float32, np.float64):
        # Every int16 is a float32 exactly, not every int32.
        values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    low, high = value_range(image)
    first = placed[0]
    shown = placed_images(header, first.thickness_mm or 1.0)[0]
    shown.SOPClassUID = CTImageStorage  # the library does not know retired and private ones
    quantity = image.quantity or Code("112187", "DCM", "Unspecified method of calculation")
    made = _Map(
        source_images=[shown],
        pixel_array=np.ascontiguousarray(values),
        series_instance_uid="1.2",
        series_number=1,
        sop_instance_uid="1.2",
        instance_number=1,
        manufacturer="anode",
        manufacturer_model_name=run.card.name[:_MAX_LONG_STRING],
        software_versions=run.card.version[:_MAX_LONG_STRING],
        device_serial_number=device_serial_number(run),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label=quantity.value[:_MAX_SHORT_STRING],
                lut_explanation=(image.label or quantity.meaning)[:_MAX_LONG_STRING],
                unit=concept(image.unit),
                value_range=(float(values.min()), float(values.max())),
                slope=1.0,
                intercept=0.0,
                quantity_definition=concept(quantity),
            )
        ],
        voi_lut_transformations=[
            VOILUTTransformation(window_center=(low + high) / 2, window_width=max(high - low, 1e-6))
        ],
        pixel_measures=PixelMeasuresSequence(first.spacing_mm, first.thickness_mm or 1.0),
        plane_orientation=PlaneOrientationSequence("PATIENT", first.orientation),
        plane_positions=[PlanePositionSequence("PATIENT", one.position_mm) for one in placed],
        content_label="MAP",
        content_description=f"{(image.label or image.name)[:40]}, {NOT_FOR_DIAGNOSIS}",
    )
    data_set = Dataset()
    data_set.update(made)
    data_set.BurnedInAnnotation = "NO"
    window = data_set.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    window.WindowCenter = as_decimal_string((low + high) / 2)
    window.WindowWidth = as_decimal_string(max(high - low, 1e-6))
    # The other function takes no width below 1 (PS3.3 section C.11.2.1.3).
    window.VOILUTFunction = "LINEAR_EXACT"
    return data_set


def _refer(
    data_set: Dataset,
    placed: tuple[Plane, ...],
    image: DerivedImage,
    primary: SourceHeader,
) -> None:
    """Say of each frame which images it was made from, and of the whole in which series they are."""
    # The library puts the frames into an order of its own.
    positions = np.array([plane.position_mm for plane in placed])
    for group in data_set.PerFrameFunctionalGroupsSequence:
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        plane = placed[int(np.linalg.norm(positions - position, axis=1).argmin())]
        item = Dataset()
        item.DerivationDescription = f"{image.label or image.name}, {NOT_FOR_DIAGNOSIS}"
        item.DerivationCodeSequence = [code_dataset(derivation(image))]
        item.SourceImageSequence = source_image_items(plane.sources)
        group.DerivationImageSequence = [item]
    shared = data_set.SharedFunctionalGroupsSequence[0]
    if "DerivationImageSequence" in shared:
        del shared.DerivationImageSequence
    # The library's own, by the class that it was told, and of one image alone.
    if "SourceImageSequence" in data_set:
        del data_set.SourceImageSequence
    used = (one.instance for plane in placed for one in plane.sources)
    set_references(data_set, used, primary.study_instance_uid)
