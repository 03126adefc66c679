"""Audit messages as an audit repository reads them: the syslog envelope, the schema, the codes."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from lxml import etree
from pydicom.sr._concepts_dict import concepts

SCHEMA = etree.RelaxNG(file=str(Path(__file__).with_name("audit_message.rng")))
ENVELOPE = re.compile(
    rb"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\S+) anode (\d+) DICOM\+RFC3881 - "
    rb"\xef\xbb\xbf(<.*>)"
)
#: Of PS3.16 annex D, as pydicom carries it: code to meaning.
DCM = {code: fact[0] for codes in concepts["DCM"].values() for code, fact in codes.items()}


@dataclass(frozen=True)
class Audited:
    """What a test asks of a message; participants are (role, AE title, requestor)."""

    event: str
    event_type: str
    action: str
    outcome: str
    description: str
    participants: list[tuple[str, str, bool]]
    addresses: list[str]
    objects: dict[str, str]
    sop_classes: dict[str, int]
    details: dict[str, bytes]
    query: bytes
    xml: str


def read(line: bytes) -> Audited:
    """Read one syslog message; fails where it is not as RFC 5424 and PS3.15 sections A.5 and A.6 say."""
    found = ENVELOPE.fullmatch(line)
    assert found is not None, line
    root = etree.fromstring(found[5])
    SCHEMA.assertValid(root)
    outcome = root.find("EventIdentification").get("EventOutcomeIndicator")
    assert int(found[1]) == 10 * 8 + {"0": 5, "4": 4, "8": 3}[outcome]
    for element in root.iter():
        if element.get("codeSystemName") == "DCM":
            assert element.get("originalText") == DCM[element.get("csd-code")]
        elif element.get("codeSystemName") is not None:
            code = (element.get("csd-code"), element.get("codeSystemName"), element.get("originalText"))
            assert code == ("2", "RFC-3881", "Patient Number")
    requestors = root.findall("ActiveParticipant[@UserIsRequestor='true']")
    assert len(requestors) <= 1, "more than one requestor"
    query = root.findtext(".//ParticipantObjectQuery")
    return Audited(
        event=root.find("EventIdentification/EventID").get("originalText"),
        event_type=_meaning(root.find("EventIdentification/EventTypeCode")),
        action=root.find("EventIdentification").get("EventActionCode"),
        outcome=outcome,
        description=root.findtext(".//EventOutcomeDescription") or "",
        participants=[
            (
                _meaning(one.find("RoleIDCode")),
                one.get("AlternativeUserID", "").removeprefix("AETITLES="),
                one.get("UserIsRequestor") == "true",
            )
            for one in root.findall("ActiveParticipant")
        ],
        addresses=[
            one.get("NetworkAccessPointID")
            for one in root.findall("ActiveParticipant[@NetworkAccessPointTypeCode='2']")
        ],
        objects={
            _meaning(one.find("ParticipantObjectIDTypeCode")): one.get("ParticipantObjectID")
            for one in root.findall("ParticipantObjectIdentification")
        },
        sop_classes={one.get("UID"): int(one.get("NumberOfInstances")) for one in root.iter("SOPClass")},
        details={
            one.get("type"): base64.b64decode(one.get("value"))
            for one in root.iter("ParticipantObjectDetail")
        },
        query=base64.b64decode(query or ""),
        xml=found[5].decode(),
    )


def lines(data_dir: Path) -> list[bytes]:
    """What the trail of a data directory holds."""
    files = sorted((data_dir / "audit").glob("audit-*.log"))
    return [line for file in files for line in file.read_bytes().splitlines()]


def trail(data_dir: Path) -> list[Audited]:
    """What the trail of a data directory holds, read and judged."""
    return [read(line) for line in lines(data_dir)]


def _meaning(element: etree._Element | None) -> str:
    return "" if element is None else str(element.get("originalText"))
