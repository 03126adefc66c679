"""DCMTK's tools and pynetdicom over TLS, in both directions, with everything that a node does there."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from node.__main__ import main
from node.config.settings import PeerConfig
from node.wire import scu
from node.wire.tls import ClientTls
from tests.support import made
from tests.support.anode_process import ROOT, AnodeProcess
from tests.support.certificates import Authority, Pair
from tests.support.dcmtk import dcmtk
from tests.support.ports import free_port
from tests.support.retrieving import STUDY_ROOT_GET, STUDY_ROOT_MOVE
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


@pytest.fixture(scope="module")
def theirs(authority: Authority) -> Pair:
    return authority.issue("peer")


@pytest.fixture(scope="module")
def mine(authority: Authority) -> Pair:
    return authority.issue("anode")


@contextmanager
def tls_node(folder: Path, authority: Authority, mine: Pair, *peers: PeerConfig) -> Iterator[SmallNode]:
    settings = config(folder, peers=peers)
    settings = replace(settings, node=replace(settings.node, tls=authority.config(mine)))
    with small_node(settings) as node:
        yield node


def tls_port(node: SmallNode) -> int:
    port = node.server.tls_port
    assert port is not None
    return port


def held_study(node: SmallNode, count: int = 3) -> tuple[str, list[Any]]:
    study, series = uid.generate_uid(), uid.generate_uid()
    images = [
        made.ct_image(study_instance_uid=study, series_instance_uid=series, InstanceNumber=number)
        for number in range(1, count + 1)
    ]
    node.receive(*images)
    return study, images


def calling(authority: Authority, pair: Pair) -> ssl.SSLContext:
    """What Python's own ssl needs to call the node, for pynetdicom."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(authority.certificate))
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def test_dcmtk_stores_and_finds_over_tls(
    tmp_path: Path, authority: Authority, mine: Pair, theirs: Pair
) -> None:
    """echoscu, storescu and findscu work over TLS, and what was stored is found."""
    image = made.ct_image(PatientName="Over^Tls")
    (tmp_path / "image.dcm").write_bytes(made.part10(image))
    with tls_node(tmp_path / "node", authority, mine) as node:
        to_node = [*authority.dcmtk(theirs), "-aec", "ANODE", "localhost", tls_port(node)]
        dcmtk("echoscu", *to_node)
        dcmtk("storescu", *to_node, tmp_path / "image.dcm")
        study = f"StudyInstanceUID={image.StudyInstanceUID}"
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", study, "-k", "PatientName")
        assert "Over^Tls" in dcmtk("findscu", "-S", *keys, *to_node)


def test_c_get_gives_back_over_tls(tmp_path: Path, authority: Authority, mine: Pair, theirs: Pair) -> None:
    """The sub-operations of a C-GET come back on its own TLS association, pixels as they were held."""
    got: dict[str, Dataset] = {}

    def store(event: Any) -> int:
        got[str(event.dataset.SOPInstanceUID)] = event.dataset
        return 0

    ae = AE("WORKSTATION")
    ae.add_requested_context(STUDY_ROOT_GET, list(UNCOMPRESSED))
    ae.add_requested_context(CTImageStorage, list(UNCOMPRESSED))
    with tls_node(tmp_path / "node", authority, mine) as node:
        study, images = held_study(node, 5)
        association = ae.associate(
            "localhost",
            tls_port(node),
            ae_title="ANODE",
            ext_neg=[build_role(CTImageStorage, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, store)],
            tls_args=(calling(authority, theirs), "localhost"),
        )
        assert association.is_established
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", study
        *_, (status, _) = association.send_c_get(asked, STUDY_ROOT_GET)
        association.release()
    assert status.Status == 0
    assert {name: one.PixelData for name, one in got.items()} == {
        str(one.SOPInstanceUID): one.PixelData for one in images
    }


def test_dcmtk_without_a_trusted_certificate_is_refused(
    tmp_path: Path, authority: Authority, mine: Pair
) -> None:
    """echoscu with somebody else's certificate, with none, and without TLS gets no association."""
    other = Authority(tmp_path / "other", "Somebody Else's CA")
    intruder = other.issue("intruder")
    with tls_node(tmp_path / "node", authority, mine) as node:
        where = ("-aec", "ANODE", "localhost", tls_port(node))
        shows = ("+tls", intruder.key, intruder.certificate, "+cf", authority.certificate)
        assert "Association Accepted" not in dcmtk("echoscu", "-v", *shows, *where, check=False)
        anonymous = ("+tla", "+cf", authority.certificate)
        assert "Association Accepted" not in dcmtk("echoscu", "-v", *anonymous, *where, check=False)
        assert "Association Accepted" not in dcmtk("echoscu", "-v", *where, check=False)
        said = dcmtk("echoscu", "-v", "-aec", "ANODE", "localhost", node.port, check=False)
        assert "Association Accepted" in said


@contextmanager
def storescp(folder: Path, authority: Authority, pair: Pair) -> Iterator[int]:
    """DCMTK's storescp over TLS; yield its port."""
    executable = shutil.which("storescp")
    if executable is None:
        pytest.skip("storescp is not installed (Debian: dcmtk)")
    folder.mkdir()
    port = free_port()
    command = [executable, "-v", *map(str, authority.dcmtk(pair)), "-od", str(folder), str(port)]
    log = folder.with_suffix(".log")
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: _listens(port))
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    # asked of the system, as a connection would be storescp's one association
    wanted = f"{port:04X}"
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()]
    return any(line[1].endswith(f":{wanted}") and line[3] == "0A" for line in lines[1:])


def test_c_move_reaches_a_tls_destination(
    tmp_path: Path, authority: Authority, mine: Pair, theirs: Pair
) -> None:
    """A C-MOVE, asked for over TLS, reaches a peer with tls = true over TLS, pixels as they are held."""
    with storescp(tmp_path / "moved", authority, theirs) as port:
        pacs = PeerConfig("PACS", "localhost", port, tls=True)
        with tls_node(tmp_path / "node", authority, mine, pacs) as node:
            study, images = held_study(node)
            asked = Dataset()
            asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", study
            with scu.connect(
                "localhost",
                tls_port(node),
                calling_ae_title="WORKSTATION",
                called_ae_title="ANODE",
                contexts=[scu.ProposedContext(STUDY_ROOT_MOVE, UNCOMPRESSED)],
                timeout_seconds=20,
                max_pdu_bytes=131072,
                tls=ClientTls(authority.config(theirs)),
            ) as association:
                answers = list(association.move(STUDY_ROOT_MOVE, asked, "PACS"))
        assert answers[-1][0] == 0
    files = [pydicom.dcmread(path) for path in (tmp_path / "moved").iterdir()]
    assert {str(one.SOPInstanceUID) for one in files} == {str(one.SOPInstanceUID) for one in images}
    by_uid = {str(one.SOPInstanceUID): one for one in images}
    assert all(one.PixelData == by_uid[str(one.SOPInstanceUID)].PixelData for one in files)


def test_anode_check_describes_storescp_and_names_whose_certificate_is_not_trusted(
    tmp_path: Path, authority: Authority, mine: Pair, theirs: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    """DCMTK's TLS is described down to its answer to C-ECHO, and both refusals have their names."""
    other = Authority(tmp_path / "other", "Somebody Else's CA")
    foreign = other.issue("foreign")
    mine_trusting_both = tmp_path / "both.crt"
    mine_trusting_both.write_text(authority.certificate.read_text() + other.certificate.read_text())

    def checked(port: int, shown: Pair, ca: Path) -> dict[str, Any]:
        file = tmp_path / "check.toml"
        file.write_text(
            f'[node.tls]\ncertificate = "{shown.certificate}"\nkey = "{shown.key}"\nca = "{ca}"\n'
            f'[[peers]]\nae_title = "PACS"\nhost = "localhost"\nport = {port}\ntls = true\n'
        )
        capsys.readouterr()
        status = main(["check", "--tls", "PACS", "--json", "--config", str(file)])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert status == bool(told["faults"])
        return told

    with storescp(tmp_path / "pacs", authority, theirs) as port:
        well = checked(port, mine, authority.certificate)
        unknown = checked(port, mine, other.certificate)
        refused = checked(port, foreign, mine_trusting_both)
    assert well["faults"] == []
    assert well["certificate"]["subject"] == "CN=peer"
    assert well["client_certificate"] == "the peer requires one, and accepts ours"
    assert well["echo_seconds"] > 0
    assert [fault["name"] for fault in unknown["faults"]] == ["unknown-issuer"]
    assert [fault["name"] for fault in refused["faults"]] == ["our-certificate-refused"]


def test_a_delivery_waits_where_the_peer_is_not_trusted(
    tmp_path: Path, authority: Authority, mine: Pair
) -> None:
    """A destination with another authority's certificate gets no byte; the job says why, and is kept."""
    other = Authority(tmp_path / "other", "Somebody Else's CA")
    with storescp(tmp_path / "sent", other, other.issue("impostor")) as port:
        pacs = PeerConfig("PACS", "localhost", port, tls=True)
        with tls_node(tmp_path / "node", authority, mine, pacs) as node:
            _, images = held_study(node, 1)
            node.enqueue_delivery("PACS", str(images[0].SOPInstanceUID))
            node.engine.start()
            wait_until(lambda: node.jobs(kind="deliver")[0]["error"])
            job = node.jobs(kind="deliver")[0]
    assert "certificate is not accepted" in str(job["error"])
    assert (job["state"], job["error_name"]) == ("ready", "peer-unreachable")
    assert list((tmp_path / "sent").iterdir()) == []


def test_a_storage_commitment_report_reaches_a_tls_peer(
    tmp_path: Path, authority: Authority, mine: Pair, theirs: Pair
) -> None:
    """What was asked over TLS is reported on a new association over TLS, where the old one is gone."""
    reports: list[Dataset] = []

    def report(event: Any) -> tuple[int, None]:
        reports.append(event.event_information)
        return 0, None

    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    serving.load_cert_chain(theirs.certificate, theirs.key)
    serving.verify_mode = ssl.CERT_REQUIRED

    ae = AE("SCANNER")
    ae.add_supported_context(StorageCommitmentPushModel, list(UNCOMPRESSED), scu_role=False, scp_role=True)
    ae.add_requested_context(StorageCommitmentPushModel, list(UNCOMPRESSED))
    with ExitStack() as exits:
        listener: Any = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            ssl_context=serving,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)],
        )
        exits.callback(listener.shutdown)
        scanner = PeerConfig("SCANNER", "localhost", listener.socket.getsockname()[1], tls=True)
        node = exits.enter_context(tls_node(tmp_path / "node", authority, mine, scanner))
        _, (image,) = held_study(node, 1)
        information, item = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        information.TransactionUID = uid.generate_uid()
        information.ReferencedSOPSequence = [item]
        association = ae.associate(
            "localhost", tls_port(node), ae_title="ANODE", tls_args=(calling(authority, theirs), "localhost")
        )
        assert association.is_established
        status, _ = association.send_n_action(
            information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        assert status.Status == 0
        association.release()
        node.engine.start()
        wait_until(lambda: reports)
    (held,) = reports[0].ReferencedSOPSequence
    assert held.ReferencedSOPInstanceUID == image.SOPInstanceUID


def test_anode_run_says_both_ports_and_anode_echo_calls_over_tls(
    tmp_path: Path, authority: Authority, mine: Pair, theirs: Pair
) -> None:
    """The ready line names the TLS port, DCMTK is answered there, and anode check and echo use it."""
    tls = f'[node.tls]\nport = 0\ncertificate = "{mine.certificate}"\nkey = "{mine.key}"\n'
    tls += f'ca = "{authority.certificate}"\n'
    with AnodeProcess(tmp_path / "node", node=tls) as node:
        ready = re.search(
            r"anode ready: ANODE on 127\.0\.0\.1:(\d+) and with TLS on 127\.0\.0\.1:(\d+), data in ",
            node.log.read_text(),
        )
        assert ready is not None
        assert int(ready[1]) == node.port
        dcmtk("echoscu", *authority.dcmtk(theirs), "-aec", "ANODE", "localhost", ready[2])
        caller = tmp_path / "caller.toml"
        caller.write_text(
            f'[node]\nae_title = "CALLER"\n{tls.replace("port = 0", "")}'
            f'[[peers]]\nae_title = "ANODE"\nhost = "localhost"\nport = {ready[2]}\ntls = true\n'
        )
        said = _anode("echo", "ANODE", "--config", str(caller))
        assert said.returncode == 0, said.stderr
        said = _anode("check", "--config", str(caller))
        assert re.search(r"tls +ok", said.stdout)
        assert "answers C-ECHO" in said.stdout
        caller.write_text(caller.read_text().replace("tls = true", "tls = false"))
        assert _anode("echo", "ANODE", "--config", str(caller)).returncode == 1


def _anode(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "node", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
