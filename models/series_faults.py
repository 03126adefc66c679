"""The faults of a series by name: what ``series-quality`` looks for."""

from __future__ import annotations

from collections.abc import Sequence

from models.types import Code

#: A fault and, in words, where and how much.
Finding = tuple[Code, str]

MISSING = Code("QC-MISSING", "99ANODE", "Missing slices")
DUPLICATE = Code("QC-DUPLICATE", "99ANODE", "Duplicate slices")
UNEVEN = Code("QC-UNEVEN", "99ANODE", "Uneven slice spacing")
MIXED = Code("QC-MIXED", "99ANODE", "Mixed geometry")
CLIPPED = Code("QC-CLIPPED", "99ANODE", "Clipped pixels")
CONSTANT = Code("QC-CONSTANT", "99ANODE", "Constant pixels")
MISMATCH = Code("QC-MISMATCH", "99ANODE", "Mismatched attributes")
UNREADABLE = Code("QC-UNREADABLE", "99ANODE", "Unreadable pixels")

NO_UNITS = Code("1", "UCUM", "no units")


def listed(items: Sequence[str], most: int = 5) -> str:
    """Join the first of them, and count the rest."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
