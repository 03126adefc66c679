"""How an object that this software made is known again, also when another system sends it back."""

from __future__ import annotations

from pydicom.dataset import Dataset

from node.ingest.header import Header
from node.undecodable import UNDECODABLE_IN_MEMORY

# Manufacturer (0008,0070) of what anode makes, also in its Contributing Equipment Sequence.
MANUFACTURER = "anode"
_MANUFACTURER = 0x00080070
# Purpose of Reference: (109102, DCM, "Processing Equipment"), PS3.16 CID 7005.
PROCESSING_EQUIPMENT_CODE = "109102"


def carries_our_marks(header: Header) -> bool:
    """Whether the header says that anode made the instance.

    It does when Manufacturer is ours and an item of Contributing Equipment Sequence (0018,A001)
    names our equipment as the processing one (PS3.3 section C.12.1). Such an instance never
    starts an analysis. One whose marks cannot be read is taken as somebody else's.
    """
    if header.value(_MANUFACTURER).strip(b" \0").lower() != MANUFACTURER.encode():
        return False
    try:
        return any(
            _is_ours(item)
            and any(
                str(code.get("CodeValue", "")) == PROCESSING_EQUIPMENT_CODE
                for code in item.get("PurposeOfReferenceCodeSequence") or []
            )
            for item in header.data_set.get("ContributingEquipmentSequence") or []
        )
    except UNDECODABLE_IN_MEMORY:
        return False


def _is_ours(data_set: Dataset) -> bool:
    return str(data_set.get("Manufacturer", "")).strip().casefold() == MANUFACTURER
