"""An audit message and its XML (PS3.15 section A.5.1)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from xml.etree import ElementTree

from node.audit.codes import Code

Action = Literal["C", "R", "U", "E"]
Outcome = Literal["0", "4", "8"]
"""Success, minor and serious failure."""

_APPLICATION_SERVER_PROCESS = "4"


@dataclass(frozen=True)
class Participant:
    """Who took part (section A.5.2): a process here, or another node by its address.

    ``access_point`` is ``(type, identifier)``: type 1 is a machine's name, 2 an IP address.
    """

    user_id: str
    ae_title: str
    is_requestor: bool
    role: Code | None
    access_point: tuple[Literal["1", "2"], str] | None = None


@dataclass(frozen=True)
class SopClassCount:
    """How many instances of a SOP class an object has; some of them by their UIDs, where that tells more."""

    sop_class_uid: str
    instances: int
    sop_instance_uids: Sequence[str] = ()


@dataclass(frozen=True)
class AuditObject:
    """What was acted on: a patient, a study, a query, a node.

    ``kind`` is ParticipantObjectTypeCode and ParticipantObjectTypeCodeRole. Either ``name`` or ``query``
    is written, as the schema demands.
    """

    id_type: Code
    identifier: str
    kind: tuple[str, str]
    name: str = ""
    query: bytes | None = None
    details: Mapping[str, bytes] = field(default_factory=dict)
    sop_classes: Sequence[SopClassCount] = ()


@dataclass(frozen=True)
class AuditMessage:
    """One message; ``at`` is in seconds since the epoch, ``description`` says what failed."""

    event: Code
    event_type: Code | None
    action: Action
    at: float
    outcome: Outcome
    participants: Sequence[Participant]
    objects: Sequence[AuditObject] = ()
    description: str = ""


def to_xml(message: AuditMessage, *, source_id: str, site_id: str) -> str:
    """Write a message as one line of XML.

    Parameters
    ----------
    source_id, site_id : str
        AuditSourceID and AuditEnterpriseSiteID; the latter may be empty.
    """
    root = ElementTree.Element("AuditMessage")
    event = _add(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=datetime.fromtimestamp(message.at, UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=message.outcome,
    )
    _add_code(event, "EventID", message.event)
    if message.event_type is not None:
        _add_code(event, "EventTypeCode", message.event_type)
    if message.description:
        _add(event, "EventOutcomeDescription").text = _clean(message.description)
    for participant in message.participants:
        _add_participant(root, participant)
    site = {"AuditEnterpriseSiteID": site_id} if site_id else {}
    source = _add(root, "AuditSourceIdentification", **site, AuditSourceID=source_id)
    _add(source, "AuditSourceTypeCode", **{"csd-code": _APPLICATION_SERVER_PROCESS})
    for one in message.objects:
        _add_object(root, one)
    return ElementTree.tostring(root, encoding="unicode")


def _add_participant(root: ElementTree.Element, participant: Participant) -> None:
    attributes = {"UserID": participant.user_id}
    if participant.ae_title:
        attributes["AlternativeUserID"] = f"AETITLES={participant.ae_title}"
    attributes["UserIsRequestor"] = "true" if participant.is_requestor else "false"
    if participant.access_point is not None:
        kind, attributes["NetworkAccessPointID"] = participant.access_point
        attributes["NetworkAccessPointTypeCode"] = kind
    element = _add(root, "ActiveParticipant", **attributes)
    if participant.role is not None:
        _add_code(element, "RoleIDCode", participant.role)


def _add_object(root: ElementTree.Element, one: AuditObject) -> None:
    kind, role = one.kind
    element = _add(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=one.identifier,
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _add_code(element, "ParticipantObjectIDTypeCode", one.id_type)
    if one.query is None:
        _add(element, "ParticipantObjectName").text = _clean(one.name)
    else:
        _add(element, "ParticipantObjectQuery").text = base64.b64encode(one.query).decode("ascii")
    for kind_of_detail, value in one.details.items():
        encoded = base64.b64encode(value).decode("ascii")
        _add(element, "ParticipantObjectDetail", type=kind_of_detail, value=encoded)
    if one.sop_classes:
        description = _add(element, "ParticipantObjectDescription")
        for count in one.sop_classes:
            sop_class = _add(
                description, "SOPClass", UID=count.sop_class_uid, NumberOfInstances=str(count.instances)
            )
            for sop_instance_uid in count.sop_instance_uids:
                _add(sop_class, "Instance", UID=sop_instance_uid)


def _add(parent: ElementTree.Element, name: str, **attributes: str) -> ElementTree.Element:
    cleaned = {key: _clean(value) for key, value in attributes.items()}
    return ElementTree.SubElement(parent, name, cleaned)


def _add_code(parent: ElementTree.Element, name: str, code: Code) -> None:
    _add(
        parent,
        name,
        **{"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning},
    )


def _clean(text: str) -> str:
    """Replace what XML cannot have, and what would begin another line: peers give titles and names."""
    return "".join(character if _is_allowed(character) else "\ufffd" for character in text)


def _is_allowed(character: str) -> bool:
    return character.isprintable() and character not in "\ufffe\uffff"
