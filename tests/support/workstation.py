"""A workstation by another implementation, pynetdicom: what it gets by C-GET."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydicom import uid
from pynetdicom import AE, build_role, evt

from tests.support.retrieving import STUDY_ROOT_GET, identifier


@dataclass
class Got:
    """The final response, and by SOP Instance UID the transfer syntax and the data set that came."""

    status: int = -1
    comment: str = ""
    failed_sop_instance_uids: list[str] = field(default_factory=list)
    instances: dict[str, tuple[str, bytes]] = field(default_factory=dict)


def get(port: int, sop_class_uid: str, *transfer_syntax_uids: str, level: str, **keys: str) -> Got:
    """C-GET of instances of one class by a peer that takes these transfer syntaxes alone."""
    got = Got()

    def store(event: evt.Event) -> int:
        request = event.request
        got.instances[str(request.AffectedSOPInstanceUID)] = (
            str(event.context.transfer_syntax),
            request.DataSet.getvalue(),
        )
        return 0

    entity = AE("WORKSTATION")
    entity.add_requested_context(STUDY_ROOT_GET, uid.ExplicitVRLittleEndian)
    for transfer_syntax_uid in transfer_syntax_uids:
        entity.add_requested_context(sop_class_uid, transfer_syntax_uid)
    association = entity.associate(
        "127.0.0.1",
        port,
        ae_title="ANODE",
        ext_neg=[build_role(sop_class_uid, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    assert association.is_established
    *_, (answer, data_set) = association.send_c_get(identifier(level, **keys), STUDY_ROOT_GET)
    association.release()
    got.status = int(answer.Status)
    got.comment = str(answer.get("ErrorComment") or "")
    failed = data_set.get("FailedSOPInstanceUIDList") if data_set is not None else None
    got.failed_sop_instance_uids = [failed] if isinstance(failed, str) else list(map(str, failed or ()))
    return got
