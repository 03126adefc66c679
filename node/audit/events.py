"""Which audit message stands for what happens here (PS3.15 section A.5.3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Literal

from node.audit import codes
from node.audit.codes import Code
from node.audit.message import Action, AuditMessage, AuditObject, Outcome, Participant, SopClassCount

_PERSON_PATIENT = ("1", "1")
_SYSTEM_REPORT = ("2", "3")
_SYSTEM_SECURITY_RESOURCE = ("2", "13")
_HOST_NAME = socket.gethostname()


def this_node(ae_title: str, role: Code | None, *, is_requestor: bool) -> Participant:
    """The process that runs the node."""
    return Participant(str(os.getpid()), ae_title, is_requestor, role, ("1", _HOST_NAME))


def other_node(ae_title: str, address: str, role: Code | None, *, is_requestor: bool) -> Participant:
    """A peer; its address stands for its process, which is not known here."""
    access_point: tuple[Literal["2"], str] | None = ("2", address) if address else None
    return Participant(address or ae_title, ae_title, is_requestor, role, access_point)


def application_activity(ae_title: str, at: float, *, is_start: bool) -> AuditMessage:
    """The node has started, or stops (section A.5.3.1)."""
    return AuditMessage(
        codes.APPLICATION_ACTIVITY,
        codes.APPLICATION_START if is_start else codes.APPLICATION_STOP,
        "E",
        at,
        "0",
        [this_node(ae_title, codes.APPLICATION, is_requestor=False)],
    )


def query(
    participants: Sequence[Participant],
    *,
    at: float,
    sop_class_uid: str,
    identifier: bytes,
    transfer_syntax_uid: str,
    failure: str,
) -> AuditMessage:
    """A C-FIND that was asked of us (section A.5.3.10); ``identifier`` is encoded as it came."""
    return AuditMessage(
        codes.QUERY,
        None,
        "E",
        at,
        "4" if failure else "0",
        participants,
        [
            AuditObject(
                codes.SOP_CLASS_UID,
                sop_class_uid,
                _SYSTEM_REPORT,
                query=identifier,
                details={"TransferSyntax": transfer_syntax_uid.encode("ascii", "replace")},
            )
        ],
        failure,
    )


def study(study_instance_uid: str, sop_classes: Mapping[str, int]) -> AuditObject:
    """A study, of which so many instances of each SOP class are meant."""
    counts = [SopClassCount(uid, count) for uid, count in sorted(sop_classes.items())]
    return AuditObject(codes.STUDY_INSTANCE_UID, study_instance_uid, _SYSTEM_REPORT, sop_classes=counts)


def patient(patient_id: str, name: str) -> AuditObject:
    """The patient of a study."""
    return AuditObject(codes.PATIENT_NUMBER, patient_id, _PERSON_PATIENT, name=name)


def instances(sop_class_uid: str, count: int, sop_instance_uids: Sequence[str]) -> AuditObject:
    """Instances of one SOP class whose study is not known here; of many, some by their UIDs."""
    counts = [SopClassCount(sop_class_uid, count, sop_instance_uids)]
    return AuditObject(codes.SOP_CLASS_UID, sop_class_uid, _SYSTEM_REPORT, sop_classes=counts)


def begin_transferring(
    participants: Sequence[Participant], objects: Sequence[AuditObject], *, at: float
) -> AuditMessage:
    """Instances of one study are about to be sent (section A.5.3.3)."""
    return AuditMessage(codes.BEGIN_TRANSFERRING, None, "E", at, "0", participants, objects)


def instances_transferred(
    participants: Sequence[Participant],
    objects: Sequence[AuditObject],
    *,
    at: float,
    action: Action,
    outcome: Outcome = "0",
    failure: str = "",
) -> AuditMessage:
    """Instances have been sent or received, or could not be (section A.5.3.7).

    ``action``: C where the receiver did not have them, R where it had, U where it changed what it had.
    """
    return AuditMessage(
        codes.INSTANCES_TRANSFERRED, None, action, at, outcome, participants, objects, failure
    )


def security_alert(
    event_type: Code, participants: Sequence[Participant], node: str, *, at: float, description: str
) -> AuditMessage:
    """Something that security needs to know of (section A.5.3.11), and which node did it."""
    subject = AuditObject(
        codes.NODE_ID,
        node,
        _SYSTEM_SECURITY_RESOURCE,
        details={"Alert Description": description.encode("utf-8", "replace")},
    )
    return AuditMessage(codes.SECURITY_ALERT, event_type, "E", at, "8", participants, [subject], description)
