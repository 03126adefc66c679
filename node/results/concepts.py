"""Coded concepts: of the model's own words, of the standard, and the schemes that need explaining."""

from __future__ import annotations

import functools
import hashlib
import re

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from models.types import Code
from node.results.header_values import code_items, text
from node.results.source_header import SourceHeader

#: anode's private coding scheme; PS3.3 section C.12.1 has it identified wherever it is used.
PRIVATE_SCHEME = "99ANODE"
PRIVATE_SCHEME_UID = "2.25.282119845601762231706318417291263412337"

SERIES = Code("113015", "DCM", "Series")
COMMENT = Code("121106", "DCM", "Comment")
LATERALITY = Code("272741003", "SCT", "Laterality")
SUCCEEDED = Code("111222", "DCM", "Succeeded")
FAILED = Code("111224", "DCM", "Failed")
NOT_A_NUMBER = Code("114000", "DCM", "Not a number")
NEGATIVE_INFINITY = Code("114001", "DCM", "Negative Infinity")
POSITIVE_INFINITY = Code("114002", "DCM", "Positive Infinity")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
MEASUREMENTS_WITHOUT_REGION = Code("NO-REGION", PRIVATE_SCHEME, "Measurement Group without region")
MARKS_BESIDE_SEGMENTS = Code("MARK", PRIVATE_SCHEME, "Measurement Group with image region")
DERIVED_OBJECTS = Code("DERIVED-OBJECTS", PRIVATE_SCHEME, "Objects derived by the algorithm")
DERIVED_IMAGE = Code("DERIVED-IMAGE", PRIVATE_SCHEME, "Image derived by the algorithm")
LABEL_MAP = Code("LABEL-MAP", PRIVATE_SCHEME, "Label map of the segments")
REGISTRATION = Code("REGISTRATION", PRIVATE_SCHEME, "Registration found by the algorithm")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "percent")
LABEL = Code("LABEL", PRIVATE_SCHEME, "Label")
SERIES_INSTANCE_UID = Code("112002", "DCM", "Series Instance UID")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
SOURCE_SERIES = Code("121232", "DCM", "Source series for segmentation")
NO_FINDING = Code("NO-FINDING", PRIVATE_SCHEME, "Finding reported by the algorithm")
NONE_REPORTED = Code("NONE", PRIVATE_SCHEME, "None reported")
#: Segmented property categories that are places in the body (PS3.16 CID 7150).
ANATOMICAL_CATEGORIES = {("123037004", "SCT"), ("91723000", "SCT"), ("T-D0050", "SRT"), ("T-D000A", "SRT")}

# PS3.16 CID 100, Quantitative Diagnostic Imaging Procedures: the values of row 4 of TID 1500.
_PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "NM": Code("49118-3", "LN", "NM unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
}
_CID_100 = {
    ("363679005", "SCT"), ("258177008", "SCT"), ("126020", "DCM"), ("126021", "DCM"), ("126022", "DCM"),
    ("433139009", "SCT"), ("446315002", "SCT"), ("25045-6", "LN"), ("25056-3", "LN"), ("49118-3", "LN"),
    ("44136-0", "LN"), ("44139-4", "LN"), ("443271005", "SCT"), ("39142-5", "LN"), ("39632-5", "LN"),
    ("RPID5427", "RADLEX"),
}  # fmt: skip
_IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_UNIT_SYMBOLS = {
    "[hnsf'U]": "HU",
    "mL": "ml",
    "1": "",
    "{counts}": "",
    "cm3": "ml",
    "mm2": "mm²",
    "mm3": "mm³",
}


def concept(code: Code) -> CodedConcept:
    """Return ``code`` as an item of a code sequence; its meaning is cut at 64 characters."""
    return CodedConcept(code.value, code.scheme, code.meaning[:64] or code.value[:64])


def code_dataset(code: Code) -> Dataset:
    """Return ``code`` as a plain item, for attributes that are not SR content."""
    plain = Dataset()
    plain.update(concept(code))
    return plain


def private_code(name: str) -> Code:
    """Return a code of the scheme 99ANODE for something that a model calls ``name``."""
    slug = re.sub(r"[^A-Z0-9]+", "-", name.upper()).strip("-")
    if not slug or len(slug) > 16:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8].upper()
        slug = f"{slug[:7].rstrip('-')}-{digest}".lstrip("-")
    return Code(slug, PRIVATE_SCHEME, name[:64] or slug)


def modality(header: SourceHeader) -> Code:
    """Return the acquisition modality as CID 29 or CID 33 has it, what neither has in the private scheme."""
    meaning = _modalities().get(header.modality)
    return private_code(header.modality) if meaning is None else Code(header.modality, "DCM", meaning)


@functools.cache
def _modalities() -> dict[str, str]:
    """Return the meanings of modalities, as the library's table has them."""
    table = {"OT": "Other Modality"}
    for group in (codes.cid33, codes.cid29):
        for name in group.dir():
            code = getattr(group, name)
            if code.scheme_designator == "DCM":
                table.setdefault(code.value, code.meaning)
    return table


def procedures_reported(header: SourceHeader) -> list[Code]:
    """Return the imaging procedures reported on (TID 1500 row 4): the study's own where CID 100 has them.

    Other codes of the study would break the template as validators read it; they are in the
    Performed Procedure Code Sequence, see ``procedures_performed``.
    """
    own = [code for code in procedures_performed(header) if (code.value, code.scheme) in _CID_100]
    return own or [_PROCEDURES.get(header.modality, _IMAGING_PROCEDURE)]


def procedures_performed(header: SourceHeader) -> list[Code]:
    """Return the codes of the study's Procedure Code Sequence (0008,1032)."""
    return [
        Code(text(item, "CodeValue"), text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning"))
        for item in code_items(header.first, "ProcedureCodeSequence")
    ]


def unit_symbol(unit: Code) -> str:
    """Return a unit as people write it: HU for ``[hnsf'U]``."""
    symbol = _UNIT_SYMBOLS.get(unit.value)
    if symbol is not None:
        return symbol
    return "" if unit.value.startswith("{") else unit.value.strip("[]")


def coding_schemes(data_set: Dataset) -> list[Dataset]:
    """Return Coding Scheme Identification items for the private schemes that ``data_set`` uses."""
    found = []
    for designator in sorted(_private_designators(data_set)):
        item = Dataset()
        item.CodingSchemeDesignator = designator
        if designator == PRIVATE_SCHEME:
            item.CodingSchemeUID = PRIVATE_SCHEME_UID
            item.CodingSchemeName = "anode"
            item.CodingSchemeResponsibleOrganization = "anode"
        else:
            item.CodingSchemeName = "private scheme of the source or the model"
        found.append(item)
    return found


def _private_designators(data_set: Dataset) -> set[str]:
    found = set()
    for tag in data_set.keys():  # noqa: SIM118  (a data set iterates over its elements, which decodes them)
        if data_set.get_item(tag).VR == "DS":
            continue
        element = data_set[tag]
        if element.VR == "SQ":
            for item in element.value:
                found |= _private_designators(item)
        elif element.keyword == "CodingSchemeDesignator" and str(element.value).startswith("99"):
            found.add(str(element.value))
    return found
