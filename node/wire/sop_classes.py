"""Which SOP classes and transfer syntaxes this node negotiates (PS3.4 annexes A, B, C and J, PS3.5)."""

from __future__ import annotations

from enum import Enum
from functools import cache

from pydicom._uid_dict import UID_dictionary

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_STUDY_ONLY_FIND = "1.2.840.10008.5.1.4.1.2.3.1"
PATIENT_STUDY_ONLY_MOVE = "1.2.840.10008.5.1.4.1.2.3.2"
PATIENT_STUDY_ONLY_GET = "1.2.840.10008.5.1.4.1.2.3.3"

_QUERY_RETRIEVE = frozenset(
    {
        PATIENT_ROOT_FIND,
        PATIENT_ROOT_MOVE,
        PATIENT_ROOT_GET,
        STUDY_ROOT_FIND,
        STUDY_ROOT_MOVE,
        STUDY_ROOT_GET,
        PATIENT_STUDY_ONLY_FIND,
        PATIENT_STUDY_ONLY_MOVE,
        PATIENT_STUDY_ONLY_GET,
    }
)

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

#: What every peer reads, the better one first.
UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

# in which an Identifier or another small data set can be read and written here
PLAIN_TRANSFER_SYNTAXES = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
    }
)

_JPEG = "1.2.840.10008.1.2.4."
# a data set in one of these has the pixels that it had before it was encoded
LOSSLESS_TRANSFER_SYNTAXES = PLAIN_TRANSFER_SYNTAXES | {
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    *(_JPEG + end for end in ("57", "58", "65", "66", "70")),  # JPEG Lossless
    _JPEG + "80",  # JPEG-LS Lossless
    *(_JPEG + end for end in ("90", "92")),  # JPEG 2000 (Lossless Only)
    *(_JPEG + end for end in ("201", "202")),  # HTJ2K (Lossless Only)
    _JPEG + "110",  # JPEG XL Lossless
}
# and in these they may have been changed; JPEG XL JPEG Recompression holds what was lossy before
LOSSY_TRANSFER_SYNTAXES = frozenset(
    {
        *(_JPEG + str(end) for end in (50, 51, 52, 53, 54, 55, 56, 59, 60, 61, 62, 63, 64)),
        *(_JPEG + end for end in ("81", "91", "93", "203", "111", "112")),
        *(_JPEG + str(end) for end in range(100, 109)),  # MPEG2, MPEG-4, HEVC
        *(_JPEG + f"{end}.1" for end in range(100, 107)),  # and those that may be fragmented
    }
)
STORAGE_TRANSFER_SYNTAXES = LOSSLESS_TRANSFER_SYNTAXES | LOSSY_TRANSFER_SYNTAXES

# current ones that pydicom's dictionary lacks
_NEWER_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.9.100.1",  # Waveform Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.9.100.2",  # Waveform Acquisition Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation Storage
}
_STANDARD_ROOT = "1.2.840.10008."
_STANDARD_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_NOT_SENT_OVER_THE_NETWORK = {"1.2.840.10008.1.3.10"}  # Media Storage Directory Storage, PS3.10


_FIND = frozenset({PATIENT_ROOT_FIND, STUDY_ROOT_FIND, PATIENT_STUDY_ONLY_FIND})
_MOVE = frozenset({PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE, PATIENT_STUDY_ONLY_MOVE})


class Service(Enum):
    """The service class of an abstract syntax, as far as negotiation treats them differently."""

    VERIFICATION = "verification"
    STORAGE = "storage"
    QUERY_RETRIEVE = "query-retrieve"
    STORAGE_COMMITMENT = "storage-commitment"


@cache
def storage_sop_classes() -> frozenset[str]:
    """Every storage SOP class of the standard, current or retired."""
    named = {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and _is_storage(name) and uid not in _NOT_SENT_OVER_THE_NETWORK
    }
    return frozenset(named | _NEWER_STORAGE)


def _is_storage(name: str) -> bool:
    if name.startswith("Storage Commitment"):
        return False
    plain = name.removesuffix(" SOP Class").removesuffix(" (Retired)")
    return plain.endswith("Storage") or " Storage - " in plain


def service_of(abstract_syntax_uid: str) -> Service | None:
    """Service class of ``abstract_syntax_uid``; None when it is unknown here."""
    if abstract_syntax_uid in storage_sop_classes():
        return Service.STORAGE
    if abstract_syntax_uid in _QUERY_RETRIEVE:
        return Service.QUERY_RETRIEVE
    if abstract_syntax_uid == VERIFICATION:
        return Service.VERIFICATION
    if abstract_syntax_uid == STORAGE_COMMITMENT_PUSH_MODEL:
        return Service.STORAGE_COMMITMENT
    return None


def has_operation(abstract_syntax_uid: str, operation: str) -> bool:
    """Whether ``operation`` is one of the service of an abstract syntax that was accepted.

    What is not known here was accepted for storage. C-ECHO is asked for in other contexts than that of
    Verification too, to see whether an association lives, and does nothing that they could forbid.
    """
    service = service_of(abstract_syntax_uid)
    if operation == "C-ECHO":
        return True
    if service is Service.QUERY_RETRIEVE:
        is_find, is_move = abstract_syntax_uid in _FIND, abstract_syntax_uid in _MOVE
        return operation == ("C-FIND" if is_find else "C-MOVE" if is_move else "C-GET")
    if service is Service.STORAGE_COMMITMENT:
        return operation in ("N-ACTION", "N-EVENT-REPORT")
    return service is not Service.VERIFICATION and operation == "C-STORE"


def may_be_storage(abstract_syntax_uid: str) -> bool:
    """Whether an abstract syntax that is unknown here can be a storage SOP class.

    Private ones can, and those of the standard that are newer than this node; Worklist, Print and
    the like cannot.
    """
    if abstract_syntax_uid in UID_dictionary:
        return False
    return abstract_syntax_uid.startswith(_STANDARD_STORAGE_ROOT) or not abstract_syntax_uid.startswith(
        _STANDARD_ROOT
    )


def choose_transfer_syntax(proposed: tuple[str, ...], acceptable: frozenset[str]) -> str | None:
    """Choose one of ``proposed`` (in the proposer's order), or None when none is acceptable.

    Never a lossy one where a lossless one is offered as well; else the proposer's order, but
    Explicit before Implicit VR Little Endian, which loses the VR of private elements.
    """
    usable = [syntax for syntax in proposed if syntax in acceptable]
    lossless = [syntax for syntax in usable if syntax in LOSSLESS_TRANSFER_SYNTAXES]
    chosen = next(iter(lossless or usable), None)
    if chosen == IMPLICIT_VR_LITTLE_ENDIAN and EXPLICIT_VR_LITTLE_ENDIAN in lossless:
        return EXPLICIT_VR_LITTLE_ENDIAN
    return chosen


def name_of(abstract_syntax_uid: str) -> str:
    """Name of a SOP class for people; those that the standard does not name have no other than their UID."""
    known = UID_dictionary.get(abstract_syntax_uid)
    return known[0] if known else "a SOP class unknown here"
