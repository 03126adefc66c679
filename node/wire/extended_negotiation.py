"""SOP Class Extended Negotiation: what this node says of itself (PS3.7 D.3.3.5 and D.3.3.6).

An answer tells what the node really does, and never grants what was not proposed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from node.wire.sop_classes import (
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    PATIENT_STUDY_ONLY_GET,
    PATIENT_STUDY_ONLY_MOVE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    Service,
    storage_sop_classes,
)

STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"

# PS3.4 tables B.3-1 and B.3-2, the odd bytes: level of support, of digital signatures, element coercion.
# As SCP: level 2, all attributes are kept; signature level 3, the bytes are; nothing is coerced.
_STORAGE_SCP = bytes([2, 0, 3, 0, 0, 0])
_STORAGE_SCU_ALONE = bytes([3, 0, 0, 0, 2, 0])
# PS3.4 section C.5.1.1: relational queries, combined date-time matching, fuzzy semantic matching,
# timezone adjustment, enhanced multi-frame conversion. The keys of the levels above are asked for, and
# date, time and name are each matched by themselves.
_FIND = bytes([0, 0, 0, 0, 0])
# PS3.4 sections C.5.2.1 and C.5.3.1: relational retrieval, enhanced multi-frame conversion. The UIDs of
# the level are enough.
_RETRIEVE = bytes([1, 0])
_RETRIEVALS = frozenset(
    {
        PATIENT_ROOT_GET,
        PATIENT_ROOT_MOVE,
        PATIENT_STUDY_ONLY_GET,
        PATIENT_STUDY_ONLY_MOVE,
        STUDY_ROOT_GET,
        STUDY_ROOT_MOVE,
    }
)


@dataclass(frozen=True)
class CommonExtension:
    """What a requestor says of the nature of a SOP class (PS3.7 table D.3-12); it is never answered."""

    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...] = ()


def application_information(
    abstract_syntax_uid: str, service: Service, proposed: bytes, *, is_scp_here: bool
) -> bytes | None:
    """Return the Service-class-application-information to answer with; None for no answer.

    Parameters
    ----------
    proposed
        That of the requestor. Of a query or retrieval, no more bytes are answered than it has.
    is_scp_here
        Whether the node is the SCP in the context, and not the SCU of C-GET sub-operations alone.
    """
    if service is Service.STORAGE:
        return _STORAGE_SCP if is_scp_here else _STORAGE_SCU_ALONE
    if service is Service.QUERY_RETRIEVE:
        supported = _RETRIEVE if abstract_syntax_uid in _RETRIEVALS else _FIND
        return bytes(int(asked == 1) & has for asked, has in zip(proposed, supported, strict=False))
    return None


def is_like_known_storage(extension: CommonExtension | None) -> bool:
    """Whether a SOP class unknown here can be stored as a general one that is known (PS3.7 D.3.3.6)."""
    return (
        extension is not None
        and extension.service_class_uid == STORAGE_SERVICE_CLASS
        and _any_known(extension.related_general_sop_class_uids)
    )


def is_of_another_service(extension: CommonExtension | None) -> bool:
    """Whether the requestor itself says that a SOP class is none of the Storage Service Class."""
    return extension is not None and extension.service_class_uid != STORAGE_SERVICE_CLASS


def _any_known(sop_class_uids: Iterable[str]) -> bool:
    return not storage_sop_classes().isdisjoint(sop_class_uids)
