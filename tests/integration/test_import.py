"""``anode import``: files and other archives come in byte for byte, whether the node runs or not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from node.config.settings import PeerConfig
from node.errors import NodeError
from node.importing import client
from node.importing.desk import Desk
from node.sending import dicom_files
from node.sending.recoding import uncompressed
from node.sending.sending import Sender
from node.storage.record import BLOCK_BYTES
from tests.support import made
from tests.support.anode_process import AnodeProcess
from tests.support.dying import killed_at
from tests.support.orthanc import running_orthanc
from tests.support.stopped_node import StoppedNode
from tests.support.waiting import wait_until

Capture = pytest.CaptureFixture[str]

WANTING = (
    '[[peers]]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 9\n'
    '[[routes]]\nwhen = { Modality = "CT" }\nsend_to = ["PACS"]\n'
    '[[analyses]]\nname = "quality"\nmodel = "series-quality"\n'
)


def ct(number: int) -> Dataset:
    return made.ct_image(
        pixels=np.full((48, 48), 10 * number, "<i2"),
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.0",
        sop_instance_uid=f"1.2.3.{number}",
        InstanceNumber=number,
    )


def write(folder: Path, *names: str) -> dict[str, str]:
    """Write one instance for each name; return their digests by SOP Instance UID."""
    for number, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        syntax = made.NATIVE_TRANSFER_SYNTAXES[number % len(made.NATIVE_TRANSFER_SYNTAXES)]
        path.write_bytes(made.part10(ct(number), syntax))
    return digests(folder)


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in dicom_files.find([folder]):
        try:
            file = dicom_files.read(path)
        except dicom_files.NotDicom:
            continue
        with dicom_files.open_data_set(file) as data_set:
            found[file.sop_instance_uid] = hashlib.sha256(data_set.read()).hexdigest()
    return found


@pytest.fixture
def node(tmp_path: Path) -> StoppedNode:
    return StoppedNode(tmp_path / "node")


def counts(node: StoppedNode, capture: Capture, *arguments: str, status: int = 0) -> dict[str, object]:
    """What the last line of ``anode import --json`` says."""
    capture.readouterr()
    said = node.run(capture, "import", *arguments, "--json", status=status)
    found = json.loads(said.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_folders_are_searched_and_data_sets_are_held_byte_for_byte(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    files = write(tmp_path / "old", "a.dcm", "deep/er/b", "ab/cd/0b1c-77", "UPPER.IMA")
    (tmp_path / "old" / "readme.txt").write_text("about the disk")
    found = counts(node, capsys, str(tmp_path / "old"))
    assert (found["stored"], found["passed_over"], found["refused"]) == (4, 1, 0)
    assert node.digests() == files
    assert "0 damaged" in node.run(capsys, "verify")


def test_files_without_a_preamble_and_data_sets_alone_are_taken_in(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    old = tmp_path / "old"
    write(old, "bare", "without-preamble")
    for name in ("bare", "without-preamble"):
        path = old / name
        start = dicom_files.read(path).data_set_offset if name == "bare" else 128 + len("DICM")
        path.write_bytes(path.read_bytes()[start:])
    files = digests(old)
    assert len(files) == 2
    assert counts(node, capsys, str(old))["stored"] == 2
    assert node.digests() == files
    assert counts(node, capsys, str(old / "bare"))["held_already"] == 1


def test_a_dicomdir_that_is_none_is_named(node: StoppedNode, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "DICOMDIR").write_text("nothing of that kind")
    said = node.run(capsys, "import", str(tmp_path / "DICOMDIR"), status=1)
    assert "no DICOMDIR that can be read" in said


def test_what_is_held_is_passed_over_without_being_taken_in_again(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path / "old", "a", "b", "c")
    node.run(capsys, "import", str(tmp_path / "old"))
    before = node.rows("instance")
    assert counts(node, capsys, str(tmp_path / "old"))["held_already"] == 3
    assert node.rows("instance") == before


def test_the_provenance_says_from_where(node: StoppedNode, tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "old", "a.dcm")
    node.run(capsys, "import", str(tmp_path / "old"))
    [(provenance,)] = node.query("SELECT provenance FROM instance")
    facts = json.loads(provenance)
    assert facts["imported_from"] == str(tmp_path / "old" / "a.dcm")
    assert facts["calling_ae_title"] == "IMPORT"


def test_no_route_and_no_analysis_follows_unless_it_is_asked_for(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "old", "a", "b")
    quiet, asked = StoppedNode(tmp_path / "quiet", WANTING), StoppedNode(tmp_path / "asked", WANTING)
    quiet.run(capsys, "import", str(tmp_path / "old"))
    asked.run(capsys, "import", str(tmp_path / "old"), "--analyze")
    kinds = "SELECT kind, COUNT(*) FROM job GROUP BY kind ORDER BY kind"
    assert quiet.query(kinds) == [("settle", 2)]
    assert quiet.query("SELECT * FROM study_arrival") == []
    assert asked.query(kinds) == [("deliver", 2), ("settle", 2)]
    assert len(asked.query("SELECT * FROM study_arrival WHERE is_open")) == 1


def test_what_was_imported_without_consequences_starts_nothing_after_a_crash_either(
    tmp_path: Path, capsys: Capture
) -> None:
    node = StoppedNode(tmp_path / "node", WANTING)
    write(tmp_path / "old", "a", "b")
    node.run(capsys, "import", str(tmp_path / "old"))
    for file in node.data_dir.glob("index.sqlite*"):
        file.unlink()
    with node.services() as services:
        assert services.ingest.replay() == 2
    assert node.query("SELECT kind, COUNT(*) FROM job GROUP BY kind") == [("settle", 2)]
    node.run(capsys, "rebuild")
    assert node.query("SELECT kind, COUNT(*) FROM job GROUP BY kind") == [("settle", 2)]
    assert node.query("SELECT * FROM study_arrival") == []


def test_conflicts_and_refusals_are_named_by_file_and_all_else_is_taken(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path / "old", "a", "b", "c")
    other = ct(1)
    other.PatientName = "Somebody^Else"
    (tmp_path / "old" / "conflict").write_bytes(made.part10(other))
    (tmp_path / "old" / "short").write_bytes(made.part10(ct(9))[:-500])
    (tmp_path / "old" / "torn").write_bytes(made.part10(ct(8))[:140])
    found = counts(node, capsys, str(tmp_path / "old"), status=1)
    assert (found["stored"], found["conflicts"], found["refused"]) == (3, 1, 2)
    told = node.run(capsys, "import", str(tmp_path / "old"), status=1)
    assert all(str(tmp_path / "old" / name) in told for name in ("conflict", "short", "torn"))
    [(provenance,)] = node.query("SELECT provenance FROM quarantine")
    assert json.loads(provenance)["imported_from"] == str(tmp_path / "old" / "conflict")
    assert "imported from" in node.run(capsys, "studies", "--quarantine")


# --- other archives ------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path, capsys: Capture) -> StoppedNode:
    """Another anode: three settled, two in its log, one in quarantine."""
    other = StoppedNode(tmp_path / "other")
    other.receive(ct(1), ct(2), ct(3), is_settled=True)
    long_one = made.ct_image(
        pixels=np.zeros((1100, 1100), "<i2"), study_instance_uid="1.2.3", sop_instance_uid="1.2.3.5"
    )
    other.receive(ct(4), long_one)
    conflict = ct(1)
    conflict.PatientName = "Somebody^Else"
    (tmp_path / "conflict").write_bytes(made.part10(conflict))
    other.run(capsys, "import", str(tmp_path / "conflict"), status=1)
    assert len(other.query("SELECT * FROM quarantine")) == 1
    return other


def test_the_archive_and_log_of_another_anode_give_what_it_received(
    node: StoppedNode, other: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    found = counts(node, capsys, str(other.data_dir))
    assert (found["stored"], found["refused"], found["conflicts"]) == (5, 0, 0)
    assert node.digests() == other.digests()
    told = node.run(capsys, "import", str(other.data_dir))
    assert "in quarantine there" in told


def test_a_backup_and_an_export_are_imported_with_the_same_digests(
    other: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    other.run(capsys, "backup", str(tmp_path / "backup"))
    other.run(capsys, "export", "1.2.3", str(tmp_path / "cd"))
    for number, source in enumerate((tmp_path / "backup", tmp_path / "cd", tmp_path / "cd" / "DICOMDIR")):
        node = StoppedNode(tmp_path / f"fresh-{number}")
        node.run(capsys, "import", str(source))
        assert node.digests() == other.digests()


def test_a_damaged_file_of_another_anode_is_refused(
    node: StoppedNode, other: StoppedNode, capsys: Capture
) -> None:
    shutil.rmtree(other.data_dir / "log")
    path = next((other.data_dir / "archive").glob("[0-9a-f]*/*.dcm"))
    content = bytearray(path.read_bytes())
    content[-60] ^= 0xFF
    path.write_bytes(content)
    found = counts(node, capsys, str(other.data_dir), status=1)
    assert (found["stored"], found["refused"]) == (2, 1)


@pytest.mark.parametrize(("block", "stored"), [(0, 0), (1, 2)])
def test_what_is_damaged_in_a_receive_log_is_named_and_hides_nothing_that_is_not(
    node: StoppedNode, tmp_path: Path, capsys: Capture, block: int, stored: int
) -> None:
    source = StoppedNode(tmp_path / "source")
    source.receive(ct(1), ct(2), ct(3))
    (name,) = {row[0].split(":")[1] for row in source.query("SELECT location FROM instance")}
    segment = source.data_dir / "log" / f"{name}.seg"
    with segment.open("r+b") as file:
        file.seek(block * BLOCK_BYTES)
        file.write(bytes(BLOCK_BYTES))
    found = counts(node, capsys, str(segment.parent), status=1)
    assert (found["stored"], found["refused"]) == (stored, 1)
    assert str(segment) in node.run(capsys, "import", str(segment.parent), status=1)


def test_only_what_is_called_as_a_segment_is_taken_for_one(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    files = write(tmp_path / "old", "liver.seg", "1.seg", "a/00000001.seg.seg")
    assert counts(node, capsys, str(tmp_path / "old"))["stored"] == 3
    assert node.digests() == files


def test_a_dicomdir_is_followed_and_what_is_missing_is_named(
    node: StoppedNode, other: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    other.run(capsys, "export", "1.2.3", str(tmp_path / "cd"))
    files = sorted(path for path in (tmp_path / "cd").rglob("IM*"))
    files[0].unlink()
    files[1].rename(files[1].with_name(f"{files[1].name.lower()};1"))
    (tmp_path / "cd" / "STRAY").write_bytes(made.part10(ct(77)))
    told = node.run(capsys, "import", str(tmp_path / "cd" / "DICOMDIR"), status=1)
    assert str(files[0]) in told
    assert "it is not there" in told
    assert len(node.digests()) == 4
    # the folder has the stray one as well
    node.run(capsys, "import", str(tmp_path / "cd"), status=1)
    assert "1.2.3.77" in node.digests()


def test_the_storage_of_orthanc_is_imported(node: StoppedNode, tmp_path: Path, capsys: Capture) -> None:
    files = write(tmp_path / "old", "a", "b", "c", "d")
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        peer = PeerConfig(ae_title="ORTHANC", host="127.0.0.1", port=orthanc.port)
        sender = Sender(
            peer, calling_ae_title="S", timeout_seconds=30, max_pdu_bytes=65536, recode=uncompressed
        )
        sent = list(sender.send([dicom_files.read(path) for path in dicom_files.find([tmp_path / "old"])]))
        assert all(one.is_stored for one in sent)
    node.run(capsys, "import", str(tmp_path / "orthanc" / "storage"))
    assert node.digests().keys() == files.keys()


# --- what is made to do harm ----------------------------------------------------------


def forged(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    """A settled file whose proof is changed."""
    raw = path.read_bytes()
    at = raw.index(struct.pack("<HH2s", 2, 0x0102, b"OB")) + 8
    (count,) = struct.unpack_from("<L", raw, at)
    (packed,) = struct.unpack_from("<L", raw, at + 4)
    text = zlib.compress(change(zlib.decompress(raw[at + 8 : at + 8 + packed])), 9)
    value = struct.pack("<L", len(text)) + text + bytes(len(text) % 2)
    (group,) = struct.unpack_from("<L", raw, 140)
    start = raw[:140] + struct.pack("<L", group + len(value) - count) + raw[144:at]
    return start + struct.pack("<L", len(value)) + value + raw[at + 4 + count :]


def endless(text: bytes) -> bytes:
    facts = json.loads(text)
    facts["received"]["length"] = float("inf")
    return json.dumps(facts).encode()


@pytest.mark.parametrize(
    "change",
    [endless, lambda _: b"[" * 100_000, lambda text: text + b" " * (80 << 20)],
    ids=["endless", "nested", "long"],
)
def test_a_file_with_a_hostile_proof_is_refused_and_the_next_one_is_imported(
    node: StoppedNode, tmp_path: Path, capsys: Capture, change: Callable[[bytes], bytes]
) -> None:
    other = StoppedNode(tmp_path / "other")
    other.receive(ct(1), is_settled=True)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_bytes(forged(other.archive_file("1.2.3.1"), change))
    (tmp_path / "old" / "b").write_bytes(made.part10(ct(2)))
    found = counts(node, capsys, str(tmp_path / "old"), status=1)
    assert (found["stored"], found["refused"]) == (1, 1)


def test_what_is_no_regular_file_is_passed_over_unopened(
    node: StoppedNode, tmp_path: Path, capsys: Capture
) -> None:
    files = write(tmp_path / "old", "a")
    for name in ("pipe", "DICOMDIR", "00000001.seg"):
        os.mkfifo(tmp_path / "old" / name)
    done = subprocess.run(
        [sys.executable, "-m", "node", "import", str(tmp_path / "old"), "--config", str(node.file)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert "3 other files passed over: no regular file" in done.stdout
    assert node.digests() == files


@pytest.mark.parametrize("file_id", ["A" * 300, ["..", "secret"], "/tmp", "A/B"])
def test_a_dicomdir_that_names_what_is_not_beside_it_is_said_and_the_rest_imported(
    node: StoppedNode, tmp_path: Path, capsys: Capture, file_id: str | list[str]
) -> None:
    medium = tmp_path / "cd"
    medium.mkdir()
    (tmp_path / "secret").write_bytes(made.part10(ct(9)))
    (medium / "OK").write_bytes(made.part10(ct(1)))
    directory = Dataset()
    directory.DirectoryRecordSequence = [Dataset(), Dataset()]
    for record, named in zip(directory.DirectoryRecordSequence, (file_id, "OK"), strict=True):
        record.add(DataElement("ReferencedFileID", "CS", named, validation_mode=IGNORE))
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = dicom_files.MEDIA_STORAGE_DIRECTORY_UID
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.save_as(medium / "DICOMDIR", enforce_file_format=True)
    found = counts(node, capsys, str(medium / "DICOMDIR"), status=1)
    assert (found["stored"], found["refused"]) == (1, 1)
    assert node.digests().keys() == {"1.2.3.1"}
    assert counts(node, capsys, str(medium), status=1)["refused"] == 1


# --- killed, and beside a running node -------------------------------------------------


def test_an_import_that_was_killed_is_repeated(node: StoppedNode, tmp_path: Path, capsys: Capture) -> None:
    files = write(tmp_path / "old", *(f"{number:02}" for number in range(12)))
    arguments = ("import", str(tmp_path / "old"), "--config", str(node.file))
    killed_at("node.importing.intake:Inside.take", 5, *arguments)
    killed_at("node.storage.reception:Reception.sync", 3, *arguments)
    found = counts(node, capsys, str(tmp_path / "old"))
    assert node.digests() == files
    # the rows of the last ones may have been made by the replay, as theirs were durable
    assert int(str(found["held_already"])) >= 6
    assert "0 damaged" in node.run(capsys, "verify")


def test_a_running_node_takes_in_what_it_would_refuse_to_a_stranger(tmp_path: Path) -> None:
    files = write(tmp_path / "old", *(f"{number:02}" for number in range(10)))
    (tmp_path / "old" / "short").write_bytes(made.part10(ct(99))[:-500])
    closed = "accept_unknown_peers = false"
    with AnodeProcess(tmp_path / "node", WANTING, node=closed) as node:
        arguments = ("import", str(tmp_path / "old"), "--config", str(node.config))
        killed_at("node.importing.client:Counter._send", 4, *arguments)
        done = node.run("import", str(tmp_path / "old"), "--json", check=False)
        assert done.returncode == 1
        found = json.loads(done.stdout.splitlines()[-1])
        assert (found["stored"], found["held_already"], found["refused"]) == (7, 3, 1)
        assert node.json("status")["instances"] == 10
        assert node.stop() == 0
        assert "Traceback" not in node.log.read_text()
        assert not (tmp_path / "node" / "data" / "import.socket").exists()
    stopped = StoppedNode(tmp_path / "look", WANTING)
    stopped.data_dir = tmp_path / "node" / "data"
    assert stopped.digests() == files
    assert stopped.query("SELECT * FROM study_arrival") == []


def test_folders_that_are_not_looked_into_are_told(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = StoppedNode(tmp_path)
    with node.services():
        pass
    write(tmp_path / "old" / "good", "a.dcm")
    (tmp_path / "old" / "scratched").mkdir()
    write(tmp_path / "elsewhere", "b.dcm")
    (tmp_path / "old" / "linked").symlink_to(tmp_path / "elsewhere")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("scratched"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    said = node.run(capsys, "import", str(tmp_path / "old"), status=1)
    assert "scratched  cannot be read: Input/output error" in said
    assert "linked" in said
    assert "name the folder itself" in said
    assert len(node.rows("instance")) == 1


def test_names_of_any_encoding_and_length_are_imported(tmp_path: Path, capsys: Capture) -> None:
    node = StoppedNode(tmp_path)
    with node.services():
        pass
    source = tmp_path / os.fsdecode(b"K\xf6ln")
    deep = source.joinpath(*["\N{GRINNING FACE}" * 55] * 6)
    deep.mkdir(parents=True)
    (deep / "a.dcm").write_bytes(made.part10(ct(1)))
    (source / os.fsdecode(b"b\xe9.dcm")).write_bytes(made.part10(ct(2))[:-60])
    said = node.run(capsys, "import", str(source), "--json", status=1)
    assert said.isascii()
    *files, last = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [
        os.fsencode(one["file"]).endswith(b"\xe9.dcm") for one in files if one["outcome"] == "refused"
    ] == [True]
    assert (last["stored"], last["refused"]) == (1, 1)


def test_an_import_too_many_is_told_so_and_a_thread_too_many_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services: Any = SimpleNamespace(
        config=SimpleNamespace(node=SimpleNamespace(data_dir=tmp_path)), ingest=None, database=None
    )
    counted = SimpleNamespace(
        sop_class_uid="1", sop_instance_uid="2", transfer_syntax_uid="3", sha256="4", where="x"
    )
    real = threading.Thread.start
    desk = Desk(services)
    desk.start()
    try:
        with ExitStack() as exits:
            for _ in range(4):
                exits.callback(client.Counter(tmp_path)._line.close)
            wait_until(lambda: len(desk._connections) == 4, what="four imports")
            with (
                client.Counter(tmp_path) as fifth,
                pytest.raises(NodeError, match="4 imports run already"),
            ):
                fifth.take(counted, is_analyzed=False)  # type: ignore[arg-type]
        wait_until(lambda: not desk._connections, what="their end")

        def start(thread: threading.Thread) -> None:
            if thread.name == "import":
                raise RuntimeError("can't start new thread")
            real(thread)

        with monkeypatch.context() as exhausted:
            exhausted.setattr(threading.Thread, "start", start)
            with (
                client.Counter(tmp_path) as unlucky,
                pytest.raises(NodeError, match="can't start new thread"),
            ):
                unlucky.take(counted, is_analyzed=False)  # type: ignore[arg-type]
        with ExitStack() as exits:
            exits.callback(client.Counter(tmp_path)._line.close)
            wait_until(lambda: len(desk._connections) == 1, what="an import")
    finally:
        desk.stop()
