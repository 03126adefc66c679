"""What every result carries: whose it is, which series it is in, and what made it."""

from __future__ import annotations

import hashlib
from copy import deepcopy

from pydicom.dataset import Dataset

from node.config.settings import ResultKind
from node.ingest.made_here import MANUFACTURER, PROCESSING_EQUIPMENT_CODE
from node.results.facts import RunFacts, Source
from node.results.source_header import SourceHeader
from node.results.uids import device_uid, node_version, run_uid

NOT_FOR_DIAGNOSIS = "not for diagnosis"
#: The last digits of Series Number. Derived images come last: there may be several series of them.
_KIND_NUMBERS: dict[ResultKind, int] = {
    "sr": 1, "seg": 2, "sc": 3, "labelmap": 4, "pm": 5, "reg": 6, "pr": 7, "rtstruct": 8, "image": 11,
}  # fmt: skip
_MAX_LONG_STRING, _MAX_SHORT_TEXT = 64, 1024


def device_uid_of(run: RunFacts) -> str:
    """Return the Device UID of the algorithm of ``run``."""
    return device_uid(run.card.manufacturer, run.card.name, run.card.version, run.weights)


def device_serial_number(run: RunFacts) -> str:
    """Return a serial number: one per algorithm, version, weights and release of anode."""
    return hashlib.sha256(f"{device_uid_of(run)} {node_version()}".encode()).hexdigest()[:16].upper()


def algorithm_parameters(source: Source, run: RunFacts) -> list[str]:
    """Return ``name=value`` of everything that the result depends on, besides the algorithm itself."""
    stated = [f"{name}={value}" for name, value in sorted(run.parameters.items())]
    digests = [("input-sha256", source.input_digest), ("weights-sha256", run.weights)]
    return [*stated, *(f"{name}={value}" for name, value in digests if value)]


def series_description(run: RunFacts, kind: ResultKind, label: str = "") -> str:
    """Return a Series Description that names the model and says what it must not be used for."""
    what = label.replace("\\", "/")[:20].strip() or kind.upper()
    end = f" {run.card.version[: 8 if label else 16]} {what} - {NOT_FOR_DIAGNOSIS}"
    return run.card.name[: _MAX_LONG_STRING - len(end)] + end


def stamp(
    data_set: Dataset,
    source: Source,
    header: SourceHeader,
    run: RunFacts,
    kind: ResultKind,
    *,
    what: str = "",
    number: int = 1,
    series: str = "",
    series_index: int = 0,
    label: str = "",
) -> None:
    """Set the attributes of the Patient, Study, Series, Equipment and SOP Common modules.

    What the source's study does not have is taken away, also when a library has put it there. Dates
    and times are the start of the run (AIR), which is frozen, never the clock.

    Parameters
    ----------
    source, header
        of the series that the analysis was started for, whatever the object is of: results lie in its study
    what
        words that no other instance of the run has, for its UID; ``kind`` when empty
    number
        Instance Number within the series
    series, series_index
        words that no other series of the run has, ``kind`` when empty, and which series of its kind it is
    label
        what the series shows, for people, in place of its kind
    """
    for element in header.patient_and_study:
        data_set[element.tag] = deepcopy(element)
    started_at = header.local(run)
    day, time = started_at.strftime("%Y%m%d"), started_at.strftime("%H%M%S.%f")
    data_set.SOPInstanceUID = run_uid(what or kind, source, run)
    data_set.SeriesInstanceUID = run_uid(f"{series or kind} series", source, run)
    data_set.InstanceCreationDate = data_set.ContentDate = data_set.SeriesDate = day
    data_set.InstanceCreationTime = data_set.ContentTime = data_set.SeriesTime = time
    data_set.SeriesNumber = series_number(header, kind, series_index)
    data_set.SeriesDescription = series_description(run, kind, label)
    data_set.InstanceNumber = number
    data_set.Manufacturer = MANUFACTURER
    data_set.ManufacturerModelName = run.card.name[:_MAX_LONG_STRING]
    data_set.SoftwareVersions = run.card.version[:_MAX_LONG_STRING]
    data_set.DeviceSerialNumber = device_serial_number(run)
    if header.timezone_offset:
        data_set.TimezoneOffsetFromUTC = header.timezone_offset
    # SR Document Series (PS3.3 section C.17.1) has no Body Part Examined.
    if header.body_part and kind != "sr":
        data_set.BodyPartExamined = header.body_part
    data_set.ContributingEquipmentSequence = contributing_equipment(source, header, run)


def series_number(header: SourceHeader, kind: ResultKind, index: int = 0) -> int:
    """Return a Series Number that sorts behind its source's: 301, 302, 303 for source series 3."""
    source_number = header.series_number if 0 < header.series_number < 2**31 // 100 - 1 else 99
    return source_number * 100 + _KIND_NUMBERS[kind] + index


def contributing_equipment(source: Source, header: SourceHeader, run: RunFacts) -> list[Dataset]:
    """Return one item for the algorithm, and one for anode when the algorithm is another's.

    The Contributing Equipment Sequence (0018,A001) with purpose (109102, DCM, "Processing Equipment")
    is what IHE AIR asks of every result. The description of the algorithm's item has the digests of input
    and weights and the parameters, as many as it can hold; the Structured Report has them all.
    """
    card = run.card
    algorithm = _equipment(header, run, card.manufacturer, card.name, card.version, device_uid_of(run))
    algorithm.ContributionDescription = _contribution(source, run)
    found = [algorithm]
    if run.card.manufacturer != MANUFACTURER:
        version = node_version()
        uid = device_uid(MANUFACTURER, "anode", version, "")
        found.append(_equipment(header, run, MANUFACTURER, "anode", version, uid))
    return found


def _contribution(source: Source, run: RunFacts) -> str:
    weights = f"weights-sha256={run.weights}" if run.weights else "no weights"
    said = f"analysis of pixels, {NOT_FOR_DIAGNOSIS}; input-sha256={source.input_digest}; {weights}"
    more = "; more parameters in the report"
    stated = [f"{name}={value}" for name, value in sorted(run.parameters.items())]
    for index, parameter in enumerate(stated):
        longer = f"{said}; {parameter}"
        # Bytes, as readers with fixed fields count them; what is cut is cut between parameters.
        if len(longer.encode()) > _MAX_SHORT_TEXT - (len(more) if index + 1 < len(stated) else 0):
            return said + more
        said = longer
    return said


def _equipment(
    header: SourceHeader, run: RunFacts, manufacturer: str, model: str, version: str, uid: str
) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue = PROCESSING_EQUIPMENT_CODE
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = manufacturer[:_MAX_LONG_STRING]
    item.ManufacturerModelName = model[:_MAX_LONG_STRING]
    item.SoftwareVersions = version[:_MAX_LONG_STRING]
    item.DeviceUID = uid
    started_at = header.local(run)
    item.ContributionDateTime = started_at.strftime("%Y%m%d%H%M%S.%f") + (
        started_at.strftime("%z")[:5] if started_at.tzinfo else ""
    )
    item.ContributionDescription = f"analysis of pixels, {NOT_FOR_DIAGNOSIS}"
    return item
