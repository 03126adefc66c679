"""Findings to a picture that any workstation shows (PS3.3 section A.8, Secondary Capture Image)."""

from __future__ import annotations

import io
from collections.abc import Iterator

from highdicom.sc import SCImage
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.types import Code, Findings, Measurement, Segment
from node.results.anatomy import Anatomy, anatomy
from node.results.concepts import code_dataset, unit_symbol
from node.results.facts import RunFacts, Source
from node.results.header_values import as_decimal_string
from node.results.picture import CheckRow, NumberRow, Words, draw
from node.results.provenance import NOT_FOR_DIAGNOSIS, stamp
from node.results.source_header import SourceHeader
from node.results.uids import run_uid

_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
_MAX_LONG_STRING = 64
# More than this nobody reads in a picture, and the Structured Report has it all.
_MAX_ROWS, _MAX_REMARK = 14, 600
_UNPAIRED = {
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BLADDER", "BRAIN", "CERVIX", "CHEST", "CHESTABDOMEN",
    "CHESTABDPELVIS", "CSPINE", "ESOPHAGUS", "HEAD", "HEADNECK", "HEART", "LIVER", "LSPINE",
    "MEDIASTINUM", "NECK", "PANCREAS", "PELVIS", "PROSTATE", "RECTUM", "SKULL", "SPINE", "SPLEEN",
    "SSPINE", "STERNUM", "STOMACH", "TSPINE", "UTERUS", "WHOLEBODY",
}  # fmt: skip


def secondary_capture(findings: Findings, source: Source, header: SourceHeader, run: RunFacts) -> Dataset:
    """Return an RGB Secondary Capture of the findings; it names no patient in its pixels."""
    shown = anatomy(findings, source, header)
    made = SCImage(
        pixel_array=draw(shown, words(findings, header, run, shown)),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=run_uid("sc series", source, run),
        series_number=1,
        sop_instance_uid=run_uid("sc", source, run),
        instance_number=1,
        manufacturer="anode",
    )
    data_set = Dataset()
    data_set.update(made)
    stamp(data_set, source, header, run, "sc")
    data_set.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    data_set.ConversionType = "WSD"
    data_set.BurnedInAnnotation = "YES"
    if header.body_part not in _UNPAIRED:
        # Laterality is of type 2C for a paired structure (PS3.3 table C.7-5a), and only then. Whether
        # another body part is one, nobody can tell for sure, so it is left out, and the side is not.
        data_set.Laterality = header.laterality or None
        if "BodyPartExamined" in data_set:
            del data_set.BodyPartExamined
    data_set.PatientOrientation = [shown.edges[1], shown.edges[3]] if shown and all(shown.edges) else None
    data_set.DateOfSecondaryCapture = data_set.ContentDate
    data_set.TimeOfSecondaryCapture = data_set.ContentTime
    data_set.SecondaryCaptureDeviceManufacturer = "anode"
    data_set.SecondaryCaptureDeviceManufacturerModelName = run.card.name[:_MAX_LONG_STRING]
    data_set.SecondaryCaptureDeviceSoftwareVersions = run.card.version[:_MAX_LONG_STRING]
    data_set.DerivationDescription = f"picture of a result, {NOT_FOR_DIAGNOSIS}"
    _set_lossy(data_set, header)
    _set_source(data_set, header, shown)
    return data_set


def picture(part10: bytes) -> Image.Image:
    """Return the picture of a Secondary Capture, for instance to save it as PNG."""
    return Image.fromarray(dcmread(io.BytesIO(part10)).pixel_array)


def words(findings: Findings, header: SourceHeader, run: RunFacts, shown: Anatomy | None) -> Words:
    """Return all that the panel says."""
    card = run.card
    checks = [
        CheckRow(f"{check.name}: {check.reason}" if check.reason else check.name, check.passed)
        for check in findings.checks
        # Beside an outlined organ only what went wrong is of interest.
        if not (check.passed and findings.segments)
    ]
    told = {check.reason for check in findings.checks}
    for evaluation in findings.evaluations:
        value = evaluation.value.meaning if isinstance(evaluation.value, Code) else evaluation.value
        if value not in told:
            checks.append(CheckRow(f"{evaluation.concept.meaning}: {value}"))
    if len(checks) > _MAX_ROWS:
        more = len(checks) - _MAX_ROWS + 1
        checks = [*checks[: _MAX_ROWS - 1], CheckRow(f"and {more} more, in the Structured Report")]
    # A summary is worth its place where it says more than the rows.
    has_rows = bool(findings.evaluations or any(segment.measurements for segment in findings.segments))
    remarks = [_shortened(findings.summary)] if findings.summary and not has_rows else []
    if not (findings.segments or findings.measurements or checks or remarks):
        remarks.append("Nothing was found.")
    footer = [f"model {card.name}, version {card.version}, {card.manufacturer}"]
    footer.append(header.local(run).strftime("%Y-%m-%d %H:%M") + _slice_text(shown, header))
    return Words(
        title=card.title or card.name,
        numbers=list(_number_rows(findings)),
        checks=checks,
        remarks=remarks,
        warning=NOT_FOR_DIAGNOSIS.capitalize(),
        footer=footer,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_REMARK else text[:_MAX_REMARK].rsplit(" ", 1)[0] + " ..."


def _number_rows(findings: Findings) -> Iterator[NumberRow]:
    for segment in findings.segments:
        region = _region(segment)
        if not segment.measurements:
            text = "outlined" if segment.mask.any() else "not found"
            yield NumberRow(region, text, "", "", segment.colour)
        for position, measurement in enumerate(segment.measurements):
            first = position == 0
            yield NumberRow(
                region,
                _name(measurement),
                _number(measurement),
                unit_symbol(measurement.unit),
                segment.colour if first else None,
            )
    for measurement in findings.measurements:
        yield NumberRow("", _name(measurement), _number(measurement), unit_symbol(measurement.unit))


def _region(segment: Segment) -> str:
    """Return the label with its side, named once."""
    label = segment.label or segment.name
    if segment.laterality is None or segment.laterality.meaning.casefold() in label.casefold():
        return label
    return f"{label}, {segment.laterality.meaning.lower()}"


def _name(measurement: Measurement) -> str:
    parts = [measurement.derivation.meaning] if measurement.derivation else []
    return " ".join([*parts, measurement.concept.meaning])


def _number(measurement: Measurement) -> str:
    value = float(measurement.value)
    magnitude = abs(value)
    # A count has no decimals.
    if magnitude >= 10000 or (measurement.unit.value == "1" and value.is_integer()):
        return f"{value:.0f}"
    return f"{value:.1f}" if magnitude >= 1 or value == 0 else f"{value:.3g}"


def _slice_text(shown: Anatomy | None, header: SourceHeader) -> str:
    if shown is None:
        return ""
    series = f", series {header.series_number}" if header.series_number else ""
    why = " (largest area)" if shown.is_largest_area else ""
    return f"{series}, slice {shown.index + 1} of {shown.count}{why}"


def _set_lossy(data_set: Dataset, header: SourceHeader) -> None:
    """Say that the source was compressed with loss, which a derived image never sheds (PS3.3 C.7.6.1.1.5)."""
    data_set.LossyImageCompression = "01" if header.lossy_image_compression else "00"
    if header.lossy_image_compression and header.lossy_ratios:
        data_set.LossyImageCompressionRatio = [as_decimal_string(value) for value in header.lossy_ratios]
    if header.lossy_image_compression and header.lossy_methods:
        data_set.LossyImageCompressionMethod = list(header.lossy_methods)


def _set_source(data_set: Dataset, header: SourceHeader, shown: Anatomy | None) -> None:
    """Refer to the image that is shown, or to the first of the series."""
    images = header.images
    if shown is not None and shown.instance is not None and header.instances[shown.instance].is_image:
        images = (header.instances[shown.instance],)
    if not images:
        return
    item = Dataset()
    item.ReferencedSOPClassUID = images[0].sop_class_uid
    item.ReferencedSOPInstanceUID = images[0].sop_instance_uid
    item.PurposeOfReferenceCodeSequence = [code_dataset(_SOURCE_IMAGE)]
    data_set.SourceImageSequence = [item]
