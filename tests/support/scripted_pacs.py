"""A PACS on pynetdicom's own upper layer, whose answers a test scripts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import BaseServer
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from node.config.settings import PeerConfig

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
BASIC_TEXT_SR_STORAGE = "1.2.840.10008.5.1.4.1.1.88.11"
UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


@dataclass
class ScriptedPacs:
    """What the PACS answers, and what it saw.

    ``statuses`` maps a SOP Instance UID to the C-STORE statuses to give, the last one for good.
    ``reports`` says how storage commitment is reported: 'same' or 'new' association, 'never'.
    ``not_held`` maps a SOP Instance UID to the Failure Reasons to report, one for each time.
    """

    ae_title: str = "PACS"
    port: int = 0
    statuses: dict[str, list[int]] = field(default_factory=dict)
    aborts_on: set[str] = field(default_factory=set)
    reports: str = "same"
    not_held: dict[str, list[int]] = field(default_factory=dict)
    action_status: int = 0
    node_port: int = 0
    stored: list[str] = field(default_factory=list)
    transfer_syntaxes: dict[str, str] = field(default_factory=dict)
    originators: set[tuple[str, int]] = field(default_factory=set)
    data_sets: dict[str, bytes] = field(default_factory=dict)
    associations: int = 0
    asked: list[list[str]] = field(default_factory=list)
    report_statuses: list[int] = field(default_factory=list)
    reports_due: dict[Any, threading.Thread] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def peer(self, **changes: Any) -> PeerConfig:
        values: dict[str, Any] = {"ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port}
        return PeerConfig(**{**values, **changes})

    # --- handlers ------------------------------------------------------------

    def accepted(self, event: Any) -> None:
        with self.lock:
            self.associations += 1

    def store(self, event: Any) -> int | Dataset:
        request = event.request
        sop_instance_uid = str(request.AffectedSOPInstanceUID)
        if sop_instance_uid in self.aborts_on:
            event.assoc.abort()
            return 0xC000
        script = self.statuses.get(sop_instance_uid, [0])
        status = script.pop(0) if len(script) > 1 else script[0]
        with self.lock:
            if status == 0 or status & 0xF000 == 0xB000:
                self.stored.append(sop_instance_uid)
                self.transfer_syntaxes[sop_instance_uid] = str(event.context.transfer_syntax)
                self.data_sets[sop_instance_uid] = request.DataSet.getvalue()
            originator = request.MoveOriginatorApplicationEntityTitle
            if originator:
                self.originators.add((str(originator), int(request.MoveOriginatorMessageID)))
        answer = Dataset()
        answer.Status = status
        if status:
            answer.ErrorComment = "because of the script"
        return answer

    def action(self, event: Any) -> tuple[int, None]:
        information = event.action_information
        items = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in information.ReferencedSOPSequence
        ]
        with self.lock:
            self.asked.append([sop_instance_uid for _, sop_instance_uid in items])
        if self.action_status == 0 and self.reports != "never":
            report = (event.assoc, str(information.TransactionUID), items)
            self.reports_due[event.assoc] = threading.Thread(target=self._report, args=report, daemon=True)
        return self.action_status, None

    def sent(self, event: Any) -> None:
        """Report behind the response to the request: sent beside it, their fragments could mix."""
        report = self.reports_due.pop(event.assoc, None)
        if report is not None:
            report.start()

    def _report(self, association: Any, transaction_uid: str, items: list[tuple[str, str]]) -> None:
        held, failed = [], []
        for sop_class_uid, sop_instance_uid in items:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
            reasons = self.not_held.get(sop_instance_uid, [])
            if reasons:
                item.FailureReason = reasons.pop(0)
            (failed if "FailureReason" in item else held).append(item)
        information = Dataset()
        information.TransactionUID = transaction_uid
        if held:
            information.ReferencedSOPSequence = held
        if failed:
            information.FailedSOPSequence = failed
        event_type = 2 if failed else 1
        if self.reports == "same":
            self._send(association, information, event_type)
            return
        ae = AE(self.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel, list(UNCOMPRESSED))
        own = ae.associate(
            "127.0.0.1",
            self.node_port,
            ae_title="ANODE",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        if own.is_established:
            self._send(own, information, event_type)
            own.release()

    def _send(self, association: Any, information: Dataset, event_type: int) -> None:
        status, _ = association.send_n_event_report(
            information, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        with self.lock:
            self.report_statuses.append(int(status.Status) if "Status" in status else -1)


@contextmanager
def listening(ae: AE, port: int, handlers: list[Any]) -> Iterator[int]:
    """Let ``ae`` accept associations, as AE.start_server does but quicker to stop; yields the port."""
    server = ae.make_server(
        ("127.0.0.1", port), server_class=ThreadedAssociationServer, evt_handlers=handlers
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        BaseServer.shutdown(server)
        server.server_close()
        thread.join()


@contextmanager
def scripted_pacs(
    *,
    contexts: Mapping[str, Sequence[str]] | None = None,
    offers_commitment: bool = True,
    ae_title: str = "PACS",
    port: int = 0,
    require_called: bool = False,
    **script: Any,
) -> Iterator[ScriptedPacs]:
    """Run a PACS that accepts ``contexts``: transfer syntaxes by SOP class."""
    pacs = ScriptedPacs(ae_title=ae_title, **script)
    ae = AE("OTHER" if require_called else ae_title)
    ae.require_called_aet = require_called
    ae.maximum_associations = 20
    ae.add_supported_context(Verification)
    wanted = contexts or {CT_IMAGE_STORAGE: UNCOMPRESSED, BASIC_TEXT_SR_STORAGE: UNCOMPRESSED}
    for sop_class_uid, transfer_syntax_uids in wanted.items():
        ae.add_supported_context(sop_class_uid, list(transfer_syntax_uids))
    if offers_commitment:
        ae.add_supported_context(StorageCommitmentPushModel, list(UNCOMPRESSED))
    handlers = [
        (evt.EVT_ACCEPTED, pacs.accepted),
        (evt.EVT_C_STORE, pacs.store),
        (evt.EVT_N_ACTION, pacs.action),
        (evt.EVT_PDU_SENT, pacs.sent),
    ]
    with listening(ae, port, handlers) as bound:
        pacs.port = bound
        yield pacs
