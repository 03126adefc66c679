"""Record the seeds of all targets anew: ``python -m tests.fuzz.record``.

DCMTK's tools, Orthanc and pynetdicom talk with the harness's own handlers through a proxy that writes down
what they send, and answer the harness's own requests. All data sets are made up.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from node.errors import AnodeError
from node.wire import scu
from tests.fuzz import header_target, matching_target
from tests.fuzz.conversation import CONTEXTS, CT_IMAGE_STORAGE, HANDLERS, SCRIPTS, requestor_operations
from tests.fuzz.memory_connection import Turns
from tests.fuzz.pdu_target import CALLED, CALLING, LIMITS, encode_choices
from tests.fuzz.targets import CORPUS
from tests.support import made
from tests.support.orthanc import running_orthanc
from tests.support.ports import free_port
from tests.support.scripted_pacs import listening
from tests.support.toy_node import toy_node
from tests.support.waiting import wait_until

FOLDER = CORPUS / "pdu"
_COMMITMENT = "1.2.840.10008.1.20.1"
_FIND, _MOVE, _GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
_QUERY = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3")
_PATIENT_QUERY = ("-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID=*")


# --- the proxy --------------------------------------------------------------------


class Proxy:
    """Hands connections on to a port, and keeps what each side of each of them has said."""

    def __init__(self, target_port: int) -> None:
        self.conversations: list[tuple[bytearray, bytearray]] = []
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def settle(self) -> None:
        """Wait until every connection has ended."""
        wait_until(lambda: self._open == 0, 20, "the connections to end")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                callee = socket.create_connection(("127.0.0.1", self._target_port))
                said = (bytearray(), bytearray())
                self.conversations.append(said)
                self._open += 2
                for source, sink, kept in ((caller, callee, said[0]), (callee, caller, said[1])):
                    threading.Thread(target=self._hand_on, args=(source, sink, kept), daemon=True).start()

    def _hand_on(self, source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                kept += piece
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        self._open -= 1


@contextlib.contextmanager
def proxy(target_port: int) -> Iterator[Proxy]:
    between = Proxy(target_port)
    try:
        yield between
    finally:
        between.close()


def keep(
    name: str, said: bytes, *, is_requestor: bool, script: int = 0, turns: Turns = Turns.PATIENT
) -> None:
    if said:
        choices = encode_choices(is_requestor=is_requestor, script=script, turns=turns)
        (FOLDER / f"recorded-{name}").write_bytes(choices + said)


# --- made-up instances --------------------------------------------------------------


def image(number: int = 1) -> Dataset:
    return made.ct_image(
        pixels=made.np.arange(16, dtype="<i2").reshape(4, 4),
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        sop_instance_uid=f"1.2.3.4.{number}",
        InstanceNumber=number,
    )


def files(folder: Path) -> dict[str, Path]:
    """An image in each transfer syntax, as Part 10 files."""
    found = {}
    for name, syntax in {
        "implicit": ImplicitVRLittleEndian,
        "explicit": ExplicitVRLittleEndian,
        "big-endian": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
        "jpeg-ls": JPEGLSLossless,
        "rle": RLELossless,
    }.items():
        found[name] = folder / f"{name}.dcm"
        found[name].write_bytes(made.part10(image(), syntax))
    return found


# --- what others ask of the node -----------------------------------------------------


def dcmtk_calls(images: dict[str, Path]) -> dict[str, list[object]]:
    propose = {"implicit": "-xi", "explicit": "-xe", "big-endian": "-xb", "deflated": "-xd", "jpeg-ls": "-xt"}
    calls: dict[str, list[object]] = {
        f"storescu-{name}": ["storescu", "-R", option, "@", images[name]] for name, option in propose.items()
    }
    two = [images["explicit"], images["implicit"]]
    return calls | {
        "storescu-rle": ["storescu", "-R", "-xr", "@", images["rle"]],
        "storescu-two": ["storescu", "-R", "+C", "+II", "@", *two],
        "storescu-user": ["storescu", "-R", "-usr", "somebody", "-pwd", "x", "-rsp", "@", images["explicit"]],
        "storescu-name": ["storescu", "-R", "-usr", "somebody", "-rsp", "@", images["explicit"]],
        "storescu-abort": ["storescu", "-R", "--abort", "-pdu", 4096, "@", images["explicit"]],
        "echoscu": ["echoscu", "@"],
        "echoscu-contexts": ["echoscu", "-pts", 4, "-ppc", 5, "--repeat", 3, "@"],
        "echoscu-abort": ["echoscu", "--abort", "@"],
        "findscu-study": ["findscu", "-S", *_QUERY, "-k", "PatientName", "@"],
        "findscu-patient": ["findscu", "-P", *_PATIENT_QUERY, "@"],
        "findscu-explicit": ["findscu", "-S", "-xe", *_QUERY, "-k", "StudyDate=20240101-", "@"],
        "findscu-cancel": ["findscu", "-S", "--cancel", 1, *_QUERY, "@"],
        "findscu-two": ["findscu", "-S", "--repeat", 2, *_QUERY, "@"],
        "getscu": ["getscu", "-S", "--ignore", *_QUERY, "@"],
        "movescu": ["movescu", "-S", "-aem", "ELSEWHERE", *_QUERY, "@"],
        "movescu-patient": ["movescu", "-P", "-aem", "ELSEWHERE", *_PATIENT_QUERY, "@"],
    }  # fmt: skip


def record_dcmtk(port: int, folder: Path) -> None:
    for name, call in dcmtk_calls(files(folder)).items():
        with proxy(port) as between:
            arguments: list[str] = []
            for argument in call:
                arguments += (
                    ["-aec", "ANODE", "127.0.0.1", str(between.port)] if argument == "@" else [str(argument)]
                )
            if call[0] in ("findscu", "getscu", "movescu", "echoscu"):
                peer = arguments.index("127.0.0.1")
                arguments = arguments[:peer] + arguments[peer + 2 :] + arguments[peer : peer + 2]
            subprocess.run(arguments, cwd=folder, capture_output=True, timeout=60, check=False)
            between.settle()
            for number, (asked, _) in enumerate(between.conversations):
                keep(f"{name}{number or ''}", bytes(asked), is_requestor=False)


def record_orthanc_scu(port: int, folder: Path) -> None:
    with proxy(port) as between, running_orthanc(folder, {"ANODE": ("127.0.0.1", between.port)}) as orthanc:
        sent = AE("SENDER")
        sent.add_requested_context(CT_IMAGE_STORAGE, ExplicitVRLittleEndian)
        association = sent.associate("127.0.0.1", orthanc.port)
        association.send_c_store(dcmread(io.BytesIO(made.part10(image()))))
        association.release()
        held = next(iter(orthanc.instances().values()))
        asked: dict[str, Callable[[], Any]] = {
            "echo": lambda: orthanc.post("/modalities/ANODE/echo", {}),
            "store": lambda: orthanc.post("/modalities/ANODE/store", [held]),
            "find": lambda: orthanc.post(
                "/modalities/ANODE/query", {"Level": "Study", "Query": {"PatientName": "*", "StudyDate": ""}}
            ),
            "move": lambda: orthanc.post(
                "/modalities/ANODE/move",
                {"Level": "Study", "Resources": [{"StudyInstanceUID": "1.2.3"}], "TargetAet": "ORTHANC"},
            ),
            "commitment": lambda: orthanc.post(
                "/modalities/ANODE/storage-commitment", {"DicomInstances": [[CT_IMAGE_STORAGE, "1.2.3.4.1"]]}
            ),
        }
        for name, ask in asked.items():
            before = len(between.conversations)
            with contextlib.suppress(OSError):
                ask()
            wait_until(lambda before=before: len(between.conversations) > before, 20, name)
            between.settle()
            keep(f"orthanc-{name}", bytes(between.conversations[before][0]), is_requestor=False)


def record_pynetdicom_scu(port: int) -> None:
    def everything(association: Any) -> None:
        association.send_c_echo()
        association.send_c_store(dcmread(io.BytesIO(made.part10(image()))))
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", "1.2.3"
        list(association.send_c_find(asked, _FIND))
        list(association.send_c_move(asked, "ELSEWHERE", _MOVE))

    def retrieve(association: Any) -> None:
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", "1.2.3"
        list(association.send_c_get(asked, _GET))

    def commit(association: Any) -> None:
        information = Dataset()
        information.TransactionUID = "1.2.3.9"
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_IMAGE_STORAGE, "1.2.3.4.1"
        information.ReferencedSOPSequence = [item]
        association.send_n_action(information, 1, _COMMITMENT, _COMMITMENT + ".1")

    def cancel(association: Any) -> None:
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", "1.2.3"
        answers = association.send_c_find(asked, _FIND, msg_id=7)
        next(answers)
        association.send_c_cancel(7, query_model=_FIND)
        list(answers)

    for name, deed in {"all": everything, "get": retrieve, "commit": commit, "cancel": cancel}.items():
        with proxy(port) as between:
            ae = AE("PYNETDICOM")
            ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
            for uid in ("1.2.840.10008.1.1", CT_IMAGE_STORAGE, _FIND, _MOVE, _GET, _COMMITMENT):
                ae.add_requested_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
            reported = threading.Event()
            stored = [
                (evt.EVT_C_STORE, lambda event: 0),
                (evt.EVT_N_EVENT_REPORT, lambda event, reported=reported: (reported.set() or 0, None)),
            ]
            association = ae.associate(
                "127.0.0.1", between.port, ae_title="ANODE", ext_neg=extensions(), evt_handlers=stored
            )
            assert association.is_established
            deed(association)
            if name == "commit":
                assert reported.wait(10)
            association.release()
            between.settle()
            keep(f"pynetdicom-{name}", bytes(between.conversations[0][0]), is_requestor=False)


def extensions() -> list[Any]:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 3
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = _FIND, b"\1\1\1"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = CT_IMAGE_STORAGE, "1.2.840.10008.4.2"
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"somebody"
    identity.positive_response_requested = True
    return [build_role(CT_IMAGE_STORAGE, scu_role=True, scp_role=True), window, extended, common, identity]


# --- what others answer to the node ----------------------------------------------------


def ask(name: str, port: int, called: str, scripts: Sequence[int]) -> None:
    """Run scripts of the harness against a peer."""
    for script in scripts:
        with proxy(port) as between:
            events: list[Any] = []
            with (
                contextlib.suppress(AnodeError),
                scu.connect(
                    "127.0.0.1",
                    between.port,
                    calling_ae_title=CALLING,
                    called_ae_title=called,
                    contexts=CONTEXTS,
                    timeout_seconds=10.0,
                    max_pdu_bytes=LIMITS.max_pdu_bytes,
                    handlers=requestor_operations(events),
                ) as association,
            ):
                for step in SCRIPTS[script]:
                    step(association, events)
            between.settle()
            keep(f"{name}-{script}", bytes(between.conversations[0][1]), is_requestor=True, script=script)
            print(f"{name} {script}: {events}")


def record_dcmtk_scp(folder: Path) -> None:
    port = free_port()
    for options in (["storescp"], ["storescp", "--refuse"]):
        server = subprocess.Popen([*options, "--ignore", str(port)], cwd=folder)
        try:
            wait_until(lambda: listens(port), 20, "storescp")
            ask("-".join(options).replace("--", ""), port, CALLED, (0, 1))
        finally:
            server.terminate()
            server.wait()
    (folder / "storage").mkdir()
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 4\nHostTable BEGIN\n"
        f"other = (ELSEWHERE, 127.0.0.1, {port})\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{CALLED} {folder / 'storage'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    server = subprocess.Popen(["dcmqrscp", "-c", str(folder / "dcmqrscp.cfg")], cwd=folder)
    try:
        wait_until(lambda: listens(port), 20, "dcmqrscp")
        image_file = files(folder)["explicit"]
        subprocess.run(["storescu", "-aec", CALLED, "127.0.0.1", str(port), image_file], check=True)
        ask("dcmqrscp", port, CALLED, (0, 2, 3, 4, 5, 7))
    finally:
        server.terminate()
        server.wait()


def record_orthanc_scp(folder: Path) -> None:
    with running_orthanc(folder, {"ELSEWHERE": ("127.0.0.1", free_port())}) as orthanc:
        ae = AE("SENDER")
        ae.add_requested_context(CT_IMAGE_STORAGE, ExplicitVRLittleEndian)
        association = ae.associate("127.0.0.1", orthanc.port)
        association.send_c_store(dcmread(io.BytesIO(made.part10(image()))))
        association.release()
        ask("orthanc-scp", orthanc.port, orthanc.ae_title, range(len(SCRIPTS)))


def record_pynetdicom_scp() -> None:
    ae = AE(CALLED)
    for context in CONTEXTS:
        ae.add_supported_context(
            context.abstract_syntax_uid, list(context.transfer_syntax_uids), scu_role=True, scp_role=True
        )
    found = Dataset()
    found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", "1.2.3"

    def get(event: Any) -> Iterator[Any]:
        yield 1
        yield 0xFF00, dcmread(io.BytesIO(made.part10(image())))

    def move(event: Any) -> Iterator[Any]:
        yield None, None

    def action(event: Any) -> tuple[int, None]:
        threading.Thread(target=report, args=(event.assoc,), daemon=True).start()
        return 0, None

    def report(association: Any) -> None:
        information = Dataset()
        information.TransactionUID = "1.2.3.9"
        association.send_n_event_report(information, 1, _COMMITMENT, _COMMITMENT + ".1")

    handlers = [
        (evt.EVT_C_STORE, lambda event: 0),
        (evt.EVT_C_FIND, lambda event: iter([(0xFF00, found), (0xFF00, found)])),
        (evt.EVT_C_GET, get),
        (evt.EVT_C_MOVE, move),
        (evt.EVT_N_ACTION, action),
    ]
    with listening(ae, 0, handlers) as port:
        ask("pynetdicom-scp", port, CALLED, range(len(SCRIPTS)))


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def main() -> None:
    for name, seeds in {"header": header_target.seeds(), "matching": matching_target.seeds()}.items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for file, data in seeds.items():
            (CORPUS / name / file).write_bytes(data)
    for tool in ("storescu", "dcmqrscp", "Orthanc"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not installed (Debian: dcmtk, orthanc)")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("recorded-*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as place, toy_node(handlers=HANDLERS) as node:
        node.services.events, node.services.script = [], 0
        folder = Path(place)
        record_dcmtk(node.port, folder)
        record_pynetdicom_scu(node.port)
        record_orthanc_scu(node.port, folder / "orthanc")
        record_dcmtk_scp(folder)
        record_pynetdicom_scp()
        record_orthanc_scp(folder / "orthanc-scp")


if __name__ == "__main__":
    main()
