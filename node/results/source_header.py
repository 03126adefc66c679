"""What results inherit from their source, made valid: scanners send odd headers, results must not.

Identity (Patient ID, name, Accession Number, UIDs) is taken over to the letter, so that a PACS files
the results with their study. Everything else that breaks its value representation (PS3.5 section 6.2)
is mended where that is safe and left empty where it is not.
"""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset

from node.results.facts import RunFacts, Source
from node.results.frames import groups_of, numbers_of
from node.results.header_values import code_items, integer, items, numbers, put, text
from node.results.uids import frame_of_reference_uid

_IDENTITY = ("PatientName", "PatientID", "AccessionNumber")
_LONG_STRINGS = ("IssuerOfPatientID", "StudyDescription", "DeidentificationMethod")
_CODE_SEQUENCES = ("DeidentificationMethodCodeSequence", "ProcedureCodeSequence")
_PATTERNS = {
    "PatientSex": r"[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "TypeOfPatientID": r"TEXT|RFID|BARCODE",
    "LongitudinalTemporalInformationModified": r"UNMODIFIED|MODIFIED|REMOVED",
    "TimezoneOffsetFromUTC": r"[+-](0\d|1[0-4])[0-5]\d",
    "Laterality": r"[LR]",
    "BodyPartExamined": r"[A-Z0-9 _]{1,16}",
}
#: By how much a direction may be longer or shorter than 1 and still be taken as it is.
_SAME_LENGTH = 1e-4
#: The cosine of two axes that are still at right angles, as ``check`` sees it.
_PERPENDICULAR = 1e-3
_CROSS_SECTIONAL_KEYWORDS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True)
class SourceInstance:
    """One source instance: what it is, and where it lies when it is a cross-sectional image."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    rows: int
    columns: int
    position_mm: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    pixel_spacing_mm: tuple[float, ...] = ()
    frames: int = 1

    @property
    def is_image(self) -> bool:
        """Whether it has pixels that an SR may refer to as IMAGE."""
        return self.rows > 0 and self.columns > 0

    @property
    def is_placed(self) -> bool:
        """Whether position, orientation and spacing are all known."""
        return (len(self.position_mm), len(self.orientation), len(self.pixel_spacing_mm)) == (3, 6, 2)


@dataclass(frozen=True)
class SourceHeader:
    """The source series as results need it.

    ``patient_and_study`` holds exactly the attributes of the Patient, General Study and Patient Study
    modules (PS3.3 sections C.7.1 and C.7.2) that every result carries.
    """

    patient_and_study: Dataset
    instances: tuple[SourceInstance, ...]
    modality: str
    series_number: int
    series_description: str
    body_part: str
    laterality: str
    frame_of_reference_uid: str
    slice_thickness_mm: float | None
    specific_character_set: str
    timezone_offset: str
    lossy_image_compression: bool
    lossy_ratios: tuple[float, ...]
    lossy_methods: tuple[str, ...]
    first: Dataset

    @classmethod
    def of(cls, source: Source) -> SourceHeader:
        """Read the headers of ``source``; nothing in them makes this fail."""
        # pydicom warns of each odd value that it reads; they are mended here, so nobody need know.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls._of(source)

    @classmethod
    def _of(cls, source: Source) -> SourceHeader:
        first = source.data_sets[0]
        series = text(first, "SeriesInstanceUID")
        return cls(
            patient_and_study=_patient_and_study(first),
            instances=tuple(_instance(data_set) for data_set in source.data_sets),
            modality=text(first, "Modality") or "OT",
            series_number=integer(first, "SeriesNumber"),
            series_description=text(first, "SeriesDescription"),
            body_part=_matching(first, "BodyPartExamined"),
            laterality=_matching(first, "Laterality"),
            frame_of_reference_uid=text(first, "FrameOfReferenceUID") or frame_of_reference_uid(series),
            slice_thickness_mm=next((n for n in numbers(first, "SliceThickness") if n > 0), None),
            specific_character_set=text(first, "SpecificCharacterSet"),
            timezone_offset=_matching(first, "TimezoneOffsetFromUTC"),
            lossy_image_compression=any(text(d, "LossyImageCompression") == "01" for d in source.data_sets),
            lossy_ratios=numbers(first, "LossyImageCompressionRatio"),
            lossy_methods=tuple(filter(None, text(first, "LossyImageCompressionMethod").split("\\"))),
            first=first,
        )

    @property
    def study_instance_uid(self) -> str:
        """Study of the source, and so of every result."""
        return str(self.patient_and_study.StudyInstanceUID)

    @property
    def series_instance_uid(self) -> str:
        """The source series."""
        return self.instances[0].series_instance_uid

    @property
    def accession_number(self) -> str:
        """Accession Number, empty when unknown."""
        return str(self.patient_and_study.AccessionNumber or "")

    @property
    def images(self) -> tuple[SourceInstance, ...]:
        """The instances that have pixels."""
        return tuple(instance for instance in self.instances if instance.is_image)

    @property
    def has_functional_groups(self) -> bool:
        """Whether it is one multi-frame instance with functional groups (PS3.3 section C.7.6.16)."""
        return len(self.instances) == 1 and bool(items(self.first, "PerFrameFunctionalGroupsSequence"))

    def local(self, run: RunFacts) -> datetime:
        """Return the start of ``run`` on the clock that the source's dates and times are in."""
        started_at = run.started_at
        if started_at.tzinfo is None:
            return started_at
        if not self.timezone_offset:
            return started_at.astimezone()
        sign = -1 if self.timezone_offset[0] == "-" else 1
        offset = timedelta(hours=int(self.timezone_offset[1:3]), minutes=int(self.timezone_offset[3:5]))
        return started_at.astimezone(timezone(sign * offset))


def _instance(data_set: Dataset) -> SourceInstance:
    groups = groups_of(data_set, 0)
    position, orientation, spacing = (
        numbers(data_set, keyword) or numbers_of(groups, keyword) for keyword in _CROSS_SECTIONAL_KEYWORDS
    )
    return SourceInstance(
        sop_class_uid=text(data_set, "SOPClassUID"),
        sop_instance_uid=text(data_set, "SOPInstanceUID"),
        study_instance_uid=text(data_set, "StudyInstanceUID"),
        series_instance_uid=text(data_set, "SeriesInstanceUID"),
        rows=max(integer(data_set, "Rows"), 0),
        columns=max(integer(data_set, "Columns"), 0),
        position_mm=position,
        orientation=_unit_vectors(orientation),
        pixel_spacing_mm=spacing if all(one > 0 for one in spacing) else (),
        frames=max(integer(data_set, "NumberOfFrames"), 1),
    )


def _unit_vectors(orientation: tuple[float, ...]) -> tuple[float, ...]:
    """Return direction cosines of length 1 where a scanner has rounded them so far that they are none.

    What is no direction, or not at right angles, says nothing: it is left out.
    """
    if len(orientation) != 6:
        return orientation
    lengths = [math.hypot(*orientation[:3]), math.hypot(*orientation[3:])]
    if not all(lengths):
        return ()
    across = sum(one * other for one, other in zip(orientation[:3], orientation[3:], strict=True))
    if abs(across) > _PERPENDICULAR * lengths[0] * lengths[1]:
        return ()
    if all(abs(length - 1) <= _SAME_LENGTH for length in lengths):
        return orientation
    return tuple(cosine / lengths[index // 3] for index, cosine in enumerate(orientation))


def _patient_and_study(first: Dataset) -> Dataset:
    out = Dataset()
    for keyword in _IDENTITY:
        put(out, keyword, text(first, keyword))
    put(out, "StudyInstanceUID", text(first, "StudyInstanceUID"))
    put(out, "StudyID", text(first, "StudyID")[:16])
    put(out, "ReferringPhysicianName", _name(text(first, "ReferringPhysicianName")))
    for keyword in ("PatientBirthDate", "StudyDate"):
        put(out, keyword, _date(text(first, keyword)))
    put(out, "StudyTime", _time(text(first, "StudyTime")))
    put(out, "PatientSex", _matching(first, "PatientSex"))
    for keyword in ("PatientAge", "TypeOfPatientID", "LongitudinalTemporalInformationModified"):
        if value := _matching(first, keyword):
            put(out, keyword, value)
    for keyword in _LONG_STRINGS:
        if value := text(first, keyword):
            put(out, keyword, "\\".join(part.strip()[:64] for part in value.split("\\")))
    for keyword in ("PatientSize", "PatientWeight"):
        found = numbers(first, keyword)
        if len(found) == 1 and found[0] >= 0:
            put(out, keyword, f"{found[0]:.10g}")
    for keyword in _CODE_SEQUENCES:
        if codes := code_items(first, keyword):
            setattr(out, keyword, codes)
    for keyword in ("IssuerOfAccessionNumberSequence", "IssuerOfPatientIDQualifiersSequence"):
        if issuers := _issuers(first, keyword):
            setattr(out, keyword, issuers)
    # Patient Identity Removed = YES needs a method (PS3.3 table C.7-1), NO must not come with one.
    has_method = "DeidentificationMethod" in out or "DeidentificationMethodCodeSequence" in out
    removed = text(first, "PatientIdentityRemoved")
    if removed == "YES" and has_method:
        out.PatientIdentityRemoved = "YES"
    else:
        for keyword in ("DeidentificationMethod", "DeidentificationMethodCodeSequence"):
            if keyword in out:
                delattr(out, keyword)
        if removed == "NO":
            out.PatientIdentityRemoved = "NO"
    return out


def _issuers(first: Dataset, keyword: str) -> list[Dataset]:
    """Hierarchic designators (PS3.3 table 10-17), those of their items that are complete."""
    found = []
    for item in items(first, keyword)[:1]:
        copy = Dataset()
        if keyword == "IssuerOfAccessionNumberSequence" and (local := text(item, "LocalNamespaceEntityID")):
            copy.LocalNamespaceEntityID = local
        universal, kind = text(item, "UniversalEntityID"), text(item, "UniversalEntityIDType")
        if universal and kind in ("DNS", "EUI64", "ISO", "URI", "UUID", "X400", "X500"):
            copy.UniversalEntityID, copy.UniversalEntityIDType = universal, kind
        if len(copy):
            found.append(copy)
    return found


def _name(value: str) -> str:
    """Return a person name whose groups have at most 64 characters each (PS3.5 section 6.2)."""
    return "=".join(group[:64] for group in value.split("=")[:3])


def _matching(data_set: Dataset, keyword: str) -> str:
    value = text(data_set, keyword)
    return value if re.fullmatch(_PATTERNS[keyword], value) else ""


def _date(value: str) -> str:
    """Return YYYYMMDD, also from the ACR-NEMA form with dots; empty when it is no date."""
    found = re.fullmatch(r"(\d{4})[.\-/]?(\d\d)[.\-/]?(\d\d)", value)
    if not found:
        return ""
    try:
        datetime(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return ""
    return "".join(found.groups())


def _time(value: str) -> str:
    """Return HHMMSS.FFFFFF as far as given, also from the ACR-NEMA form with colons; empty when none."""
    found = re.fullmatch(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?\d*", value)
    return "".join(part for part in found.groups() if part) if found else ""
