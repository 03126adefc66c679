"""Every way out gives the exact bytes, and damage never leaves the node."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from node import status
from node.config.settings import PeerConfig, TranscodeConfig
from node.jobs.task import Done, Job
from node.sending import memory, shipping
from node.storage import archive
from node.tasks.settle import SettleTask
from node.transcode import outgoing
from node.transcode.outgoing import Outgoing
from node.wire import scu
from node.wire.association import Request, Response
from tests.support import made
from tests.support.dcmtk import dcmtk
from tests.support.retrieving import STUDY_ROOT_GET, identifier
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

EXPLICIT, IMPLICIT = str(uid.ExplicitVRLittleEndian), str(uid.ImplicitVRLittleEndian)
JPEG_LS = str(uid.JPEGLSLossless)
_PATIENCE_SECONDS = 120.0


def threads() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("read-ahead", "frames"))
    ]


def open_files(folder: Path) -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return [path for path in found if path.startswith(str(folder / "archive"))]


def settle(node: SmallNode, *sop_instance_uids: str) -> None:
    task = SettleTask()
    jobs = [
        Job(number, "settle", one, "", {"sop_instance_uid": one}, "1.2", 1, 0.0)
        for number, one in enumerate(sop_instance_uids)
    ]
    settled = 0
    for _, outcome in task.run(node.services, jobs):
        assert isinstance(outcome, Done)
        if outcome.apply is not None:
            node.services.database.write(outcome.apply)
        settled += 1
    task.cancel()
    assert settled == len(jobs)


class Study:
    """A node that holds images of 100 by 90 and a multi-frame image, settled as JPEG-LS."""

    def __init__(self, node: SmallNode, count: int = 5) -> None:
        self.node = node
        self.uid = uid.generate_uid()
        random = np.random.default_rng(1)
        ramp = np.arange(9000).reshape(100, 90) // 7
        self.images = [
            made.ct_image(
                pixels=(ramp + random.integers(0, 9, (100, 90))).astype(np.int16),
                study_instance_uid=self.uid,
                InstanceNumber=number,
            )
            for number in range(count)
        ]
        frames = np.concatenate([ramp + number for number in range(9)]).astype(np.int16)
        movie = made.ct_image(pixels=frames, study_instance_uid=self.uid, NumberOfFrames=9)
        movie.Rows = 100
        self.images.append(movie)
        self.uids = node.receive(*self.images)

    def received(self, transfer_syntax_uid: str = EXPLICIT) -> dict[str, bytes]:
        return {str(image.SOPInstanceUID): made.encoded(image, transfer_syntax_uid) for image in self.images}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SmallNode]:
    # settling in the middle of a retrieval may take long, and the peer's answer waits for it
    with small_node(config(tmp_path / "node", network_timeout_seconds=_PATIENCE_SECONDS)) as running:
        yield running


class Asking:
    """A C-GET; what came is in ``got``: SOP Instance UID to (transfer syntax, data set)."""

    def __init__(self, node: SmallNode, *transfer_syntax_uids: str, max_pdu_bytes: int = 16384) -> None:
        self.got: dict[str, tuple[str, bytes]] = {}
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._node = node
        self._contexts = [scu.ProposedContext(STUDY_ROOT_GET, (EXPLICIT,))] + [
            scu.ProposedContext(made.CT_IMAGE_STORAGE, (one,), scp_role=True) for one in transfer_syntax_uids
        ]
        self._max_pdu_bytes = max_pdu_bytes

    def _store(self, request: Request) -> Iterator[Response]:
        views = [bytes(view) for views in request.fragments() for view in views]
        self.got[str(request.command.AffectedSOPInstanceUID)] = (
            request.context.transfer_syntax_uid,
            b"".join(views),
        )
        assert self.may_go_on.wait(_PATIENCE_SECONDS)
        yield Response(status.SUCCESS)

    def connect(self) -> scu.RequestedAssociation:
        return scu.connect(
            "127.0.0.1",
            self._node.port,
            calling_ae_title="VIEWER",
            called_ae_title="ANODE",
            contexts=self._contexts,
            timeout_seconds=_PATIENCE_SECONDS,
            max_pdu_bytes=self._max_pdu_bytes,
            handlers={"C-STORE": self._store},
        )

    def get(self, study_instance_uid: str) -> Response:
        """Ask, and return the final response."""
        with self.connect() as association:
            asked = identifier("STUDY", StudyInstanceUID=study_instance_uid)
            return [response for _, response in association.get(STUDY_ROOT_GET, asked)][-1]


@pytest.mark.parametrize("max_pdu_bytes", [4096, 16384, 131072])
@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize(
    ("transfer_syntax_uid", "is_settled"),
    # what is not settled is not stored as JPEG-LS
    [(EXPLICIT, True), (EXPLICIT, False), (IMPLICIT, True), (IMPLICIT, False), (JPEG_LS, True)],
)
def test_each_way_out_gives_the_exact_bytes(
    node: SmallNode,
    monkeypatch: pytest.MonkeyPatch,
    max_pdu_bytes: int,
    is_small: bool,
    is_settled: bool,
    transfer_syntax_uid: str,
) -> None:
    """As received, as stored and written anew: the same from memory and from files, at any PDU length."""
    if not is_small:
        monkeypatch.setattr(outgoing, "READ_WHOLE_BYTES", 1000)
        monkeypatch.setattr(outgoing, "IN_MEMORY_BYTES", 1000)
        monkeypatch.setattr(shipping, "LARGEST_MADE_BYTES", 1000)
    study = Study(node)
    if is_settled:
        settle(node, *study.uids)
    asking = Asking(node, transfer_syntax_uid, max_pdu_bytes=max_pdu_bytes)
    assert asking.get(study.uid).status == status.SUCCESS
    assert {syntax for syntax, _ in asking.got.values()} == {transfer_syntax_uid}
    for image in study.images:
        one = str(image.SOPInstanceUID)
        if transfer_syntax_uid == JPEG_LS:
            path = node.services.storage.path(node.stored(one).location)
            assert path.read_bytes().endswith(asking.got[one][1])
            assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEG_LS
        else:
            assert asking.got[one][1] == made.encoded(image, transfer_syntax_uid)


@pytest.mark.parametrize("is_settled", [True, False])
def test_the_disk_is_told_what_comes_next(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    """The system is asked to read where each instance lies, wherever that is, and goes on without it."""
    study = Study(node)
    if is_settled:
        settle(node, *study.uids)
    told: set[tuple[str, int]] = set()

    def refuse(file: int, offset: int, count: int, advice: int) -> None:
        assert count
        assert advice == os.POSIX_FADV_WILLNEED
        told.add((os.readlink(f"/proc/self/fd/{file}"), offset))
        raise OSError

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    asking = Asking(node, EXPLICIT)
    assert asking.get(study.uid).status == status.SUCCESS
    locations = [node.stored(one).location for one in study.uids]
    assert told == {(str(node.services.storage.path(one)), one.offset) for one in locations}
    assert len(told) == len(study.uids)


def test_dcmtk_gets_the_same_file_that_is_stored(node: SmallNode, tmp_path: Path) -> None:
    """``getscu --bit-preserving`` writes the data sets that were received, with short and long PDUs."""
    study = Study(node)
    settle(node, *study.uids)
    for max_pdu_bytes in (4096, 131072):
        folder = tmp_path / str(max_pdu_bytes)
        folder.mkdir()
        dcmtk(
            "getscu", "-S", "+B", "-pdu", max_pdu_bytes, "-aec", "ANODE", "-od", folder,
            "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.uid}",
            "127.0.0.1", node.port,
        )  # fmt: skip
        files = [path.read_bytes() for path in folder.iterdir()]
        assert len(files) == len(study.images)
        for data_set in study.received().values():
            assert sum(file.endswith(data_set) for file in files) == 1


# --- damage --------------------------------------------------------------------------


def damage(node: SmallNode, sop_instance_uid: str) -> None:
    path = node.services.storage.path(node.stored(sop_instance_uid).location)
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)


def test_an_instance_whose_file_is_gone_fails_alone_and_is_noted(node: SmallNode) -> None:
    study = Study(node)
    settle(node, *study.uids)
    node.services.storage.path(node.stored(study.uids[1]).location).unlink()
    asking = Asking(node, EXPLICIT)
    final = asking.get(study.uid)
    assert (final.status, final.failed, final.completed) == (0xB000, 1, len(study.uids) - 1)
    assert study.uids[1] not in asking.got
    with node.services.database.read() as connection:
        assert node.services.index.counts(connection)["damaged"] == 1


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("transfer_syntax_uid", [EXPLICIT, JPEG_LS, IMPLICIT])
def test_a_damaged_instance_fails_alone_and_is_noted(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch, is_small: bool, transfer_syntax_uid: str
) -> None:
    """One flipped bit: not a byte of that instance is sent, the others are, and ``anode verify`` lists it."""
    if not is_small:
        monkeypatch.setattr(outgoing, "READ_WHOLE_BYTES", 1000)
    study = Study(node)
    settle(node, *study.uids)
    damage(node, study.uids[2])
    asking = Asking(node, transfer_syntax_uid)
    final = asking.get(study.uid)
    assert (final.status, final.failed, final.completed) == (0xB000, 1, len(study.uids) - 1)
    assert isinstance(final.identifier, Dataset)
    assert final.identifier.FailedSOPInstanceUIDList == study.uids[2]
    assert set(asking.got) == set(study.uids) - {study.uids[2]}
    with node.services.database.read() as connection:
        assert node.services.index.counts(connection)["damaged"] == 1


def test_a_checksum_that_is_wrong_itself_damages_nothing(node: SmallNode) -> None:
    """SHA-256 has the last word: a wrong CRC-32 in the row does not make a good instance bad."""
    study = Study(node, 1)
    settle(node, *study.uids)

    def spoil(connection: object) -> None:
        for one in study.uids:
            stored = node.stored(one)
            assert stored.proof is not None
            proof = {**stored.proof, "stored": {**stored.proof["stored"], "crc32": 1}}
            node.services.index.settle(
                connection,  # type: ignore[arg-type]
                one,
                location=stored.location,
                stored_transfer_syntax_uid=stored.stored_transfer_syntax_uid,
                kept_reason=stored.kept_reason,
                proof=proof,
            )

    node.services.database.write(spoil)
    asking = Asking(node, JPEG_LS)
    assert asking.get(study.uid).status == status.SUCCESS
    assert set(asking.got) == set(study.uids)


def test_the_checksum_is_that_of_what_is_stored(node: SmallNode) -> None:
    """A settled instance can be sent without SHA-256, because its row has the CRC-32 of its file."""
    study = Study(node, 2)
    settle(node, *study.uids)
    for one in study.uids:
        stored = node.stored(one)
        assert stored.proof is not None
        with node.services.storage.open(stored.location) as file:
            assert zlib.crc32(file.read()) == stored.proof["stored"]["crc32"]
        assert Outgoing(node.services.storage, stored).is_at_hand(JPEG_LS)
        assert archive.read_private(node.services.storage.path(stored.location))["stored"]["crc32"]


# --- while it goes on ------------------------------------------------------------------


@pytest.mark.parametrize("transfer_syntax_uid", [EXPLICIT, JPEG_LS])
def test_an_instance_that_is_settled_in_the_middle_is_sent(node: SmallNode, transfer_syntax_uid: str) -> None:
    """Rows that were looked up at the beginning may become old: they are looked up again."""
    study = Study(node, 40)
    if transfer_syntax_uid == JPEG_LS:
        settle(node, study.uids[0])
    asking = Asking(node, transfer_syntax_uid, EXPLICIT)
    asking.may_go_on.clear()
    results: list[Response] = []
    asker = threading.Thread(target=lambda: results.append(asking.get(study.uid)))
    asker.start()
    wait_until(lambda: bool(asking.got), what="the first instance")
    settle(node, *study.uids)
    node.services.storage.reclaim(lambda _: False)
    node.services.storage.reclaim(lambda _: False)
    asking.may_go_on.set()
    asker.join(_PATIENCE_SECONDS)
    assert [result.status for result in results] == [status.SUCCESS]
    received = study.received()
    for one, (syntax, data_set) in asking.got.items():
        assert syntax == JPEG_LS or data_set == received[one]
    assert len(asking.got) == len(study.uids)


@pytest.mark.parametrize("transfer_syntax_uid", [EXPLICIT, JPEG_LS])
def test_a_cancel_leaves_no_thread_and_no_file_behind(
    node: SmallNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transfer_syntax_uid: str
) -> None:
    """What was made ahead of a retrieval that is cancelled is given up, whether decoded or opened."""
    monkeypatch.setattr(outgoing, "READ_WHOLE_BYTES", 1000)
    study = Study(node, 30)
    settle(node, *study.uids)
    asking = Asking(node, transfer_syntax_uid)
    with asking.connect() as association:
        asked = identifier("STUDY", StudyInstanceUID=study.uid)
        for _ in association.get(STUDY_ROOT_GET, asked):
            break
        assert association.is_established
    assert len(asking.got) < 30
    wait_until(lambda: not threads(), what="the threads to end")
    wait_until(lambda: not open_files(tmp_path / "node"), what="the files to be closed")
    assert node.services.sending_memory.ahead.left_bytes == memory.AHEAD_BYTES


def test_a_requestor_that_breaks_off_leaves_nothing_behind(node: SmallNode, tmp_path: Path) -> None:
    """An aborted retrieval gives up what was made ahead, too."""
    study = Study(node, 30)
    settle(node, *study.uids)
    asking = Asking(node, EXPLICIT)
    association = asking.connect()
    for _ in association.get(STUDY_ROOT_GET, identifier("STUDY", StudyInstanceUID=study.uid)):
        association.abort()
        break
    association.close()
    wait_until(lambda: node.server.association_count == 0, what="the association to end")
    wait_until(lambda: not threads(), what="the threads to end")
    wait_until(lambda: not open_files(tmp_path / "node"), what="the files to be closed")
    assert node.services.sending_memory.ahead.left_bytes == memory.AHEAD_BYTES


def test_a_slow_reader_has_no_more_made_than_its_share(
    node: SmallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the peer takes nothing, what is made ahead of it stays within the bound."""
    monkeypatch.setattr("node.sending.read_ahead._AHEAD_BYTES", 100_000)
    study = Study(node, 40)
    settle(node, *study.uids)
    asking = Asking(node, EXPLICIT)
    asking.may_go_on.clear()
    asker = threading.Thread(target=asking.get, args=(study.uid,))
    asker.start()
    try:
        wait_until(lambda: bool(asking.got), what="the first instance")
        budget, made_data_sets = node.services.sending_memory.ahead, node.services.sending_memory.made
        wait_until(lambda: not _is_busy(made_data_sets), what="the making to pause")
        assert memory.AHEAD_BYTES - budget.left_bytes <= 100_000
        assert len(asking.got) == 1
        # 18 KB each: what goes out, and what waits
        assert made_data_sets.held_bytes < 7 * 19_000
    finally:
        asking.may_go_on.set()
        asker.join(30)
    assert len(asking.got) == len(study.uids)


def _is_busy(made_data_sets: memory.MadeDataSets) -> bool:
    return bool(made_data_sets._being_made) or made_data_sets.held_bytes < 5 * 18_000


def test_what_was_decoded_once_is_not_decoded_again(node: SmallNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks again is given what was made for the first one, the same bytes."""
    study = Study(node)
    settle(node, *study.uids)
    first, second = Asking(node, EXPLICIT), Asking(node, EXPLICIT)
    assert first.get(study.uid).status == status.SUCCESS

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded already")

    monkeypatch.setattr(outgoing, "restore", never)
    assert second.get(study.uid).status == status.SUCCESS
    assert first.got == second.got


def test_nothing_that_was_decoded_is_kept_where_no_memory_is_given_for_it(tmp_path: Path) -> None:
    """``transcode.decoded_cache_bytes`` bounds it, and the bytes are the same without it."""
    settings = replace(config(tmp_path / "node"), transcode=TranscodeConfig(decoded_cache_bytes=0))
    with small_node(settings) as node:
        study = Study(node)
        settle(node, *study.uids)
        first, second = Asking(node, EXPLICIT), Asking(node, EXPLICIT)
        assert first.get(study.uid).status == second.get(study.uid).status == status.SUCCESS
        assert first.got == second.got
        assert len(first.got) == len(study.uids)
        assert node.services.sending_memory.made.held_bytes == 0


def test_a_move_sends_files_and_decoded_data_sets_alike(tmp_path: Path) -> None:
    """A destination that takes JPEG-LS for one SOP class gets what is stored, over one association."""
    folder = tmp_path / "moved"
    folder.mkdir()
    with ExitStack() as exits, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        dcmtk("storescp", "--version")
        receiver = subprocess.Popen(
            ["storescp", "+B", "+xt", "-aet", "KEEPER", "-od", str(folder), str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        exits.callback(receiver.wait)
        exits.callback(receiver.terminate)
        node = exits.enter_context(
            small_node(config(tmp_path / "node", peers=[PeerConfig("KEEPER", "127.0.0.1", port)]))
        )
        study = Study(node)
        settle(node, *study.uids[1:])
        wait_until(
            lambda: "Accepted" in dcmtk("echoscu", "-v", "-aec", "KEEPER", "127.0.0.1", port, check=False),
            what="storescp",
        )
        dcmtk(
            "movescu", "-S", "-aec", "ANODE", "-aem", "KEEPER", "-k", "QueryRetrieveLevel=STUDY",
            "-k", f"StudyInstanceUID={study.uid}", "127.0.0.1", node.port,
        )  # fmt: skip
        moved = [pydicom.dcmread(path) for path in folder.iterdir()]
        assert sorted(one.SOPInstanceUID for one in moved) == sorted(study.uids)
        originals = {image.SOPInstanceUID: image.PixelData for image in study.images}
        for one in moved:
            assert one.pixel_array.tobytes() == originals[one.SOPInstanceUID]
