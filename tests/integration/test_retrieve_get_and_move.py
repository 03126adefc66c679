"""C-GET and C-MOVE give back what is held, count right, and stop when they are told to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE

from node.config.settings import PeerConfig
from node.wire import scu
from node.wire.association import Request, Response
from tests.support import made
from tests.support.dcmtk import dcmtk
from tests.support.ports import free_port
from tests.support.retrieving import STUDY_ROOT_GET, STUDY_ROOT_MOVE, identifier
from tests.support.scripted_pacs import BASIC_TEXT_SR_STORAGE, CT_IMAGE_STORAGE, ScriptedPacs, scripted_pacs
from tests.support.small_node import SmallNode, config, small_node
from tests.support.waiting import wait_until

UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


@dataclass
class Held:
    """A node with a study of three images and a report, and a PACS that it knows."""

    node: SmallNode
    pacs: ScriptedPacs
    study: str
    series: str
    images: list[Any] = field(default_factory=list)
    report: Any = None

    @property
    def uids(self) -> list[str]:
        return [str(one.SOPInstanceUID) for one in [*self.images, self.report]]


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def held(tmp_path: Path, exits: ExitStack) -> Held:
    pacs = exits.enter_context(scripted_pacs())
    down = PeerConfig("DOWN", "127.0.0.1", free_port())
    only_calls = PeerConfig("ONLYCALLS", addresses=("127.0.0.1",))
    implicit = (str(uid.ImplicitVRLittleEndian),)
    reader = PeerConfig("READER", addresses=("127.0.0.1",), send_transfer_syntaxes=implicit)
    peers = [pacs.peer(), down, only_calls, reader]
    node = exits.enter_context(small_node(config(tmp_path / "node", peers=peers)))
    study, series = uid.generate_uid(), uid.generate_uid()
    images = [
        made.ct_image(study_instance_uid=study, series_instance_uid=series, InstanceNumber=number)
        for number in (1, 2, 3)
    ]
    report = made.instance(study_instance_uid=study, Modality="SR")
    node.receive(*images, report)
    return Held(node, pacs, study, series, images, report)


def associate(
    held: Held,
    model: str,
    storage: tuple[str, ...] = (),
    handlers: Any = None,
    *,
    calling: str = "WORKSTATION",
) -> scu.RequestedAssociation:
    contexts = [scu.ProposedContext(model, UNCOMPRESSED)]
    contexts += [scu.ProposedContext(one, UNCOMPRESSED, scp_role=True) for one in storage]
    return scu.connect(
        "127.0.0.1",
        held.node.port,
        calling_ae_title=calling,
        called_ae_title="ANODE",
        contexts=contexts,
        timeout_seconds=20,
        max_pdu_bytes=131072,
        handlers=handlers,
    )


def numbers(response: Response) -> tuple[int | None, int | None, int | None, int | None]:
    return response.remaining, response.completed, response.failed, response.warning


def failed_list(response: Response) -> list[str]:
    assert isinstance(response.identifier, Dataset)
    value = response.identifier.FailedSOPInstanceUIDList
    return [str(value)] if isinstance(value, str) else [str(one) for one in value]


# --- C-GET ------------------------------------------------------------------------


class Taker:
    """Takes sub-operations and answers as scripted."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.taken: dict[str, bytes] = {}

    def store(self, request: Request) -> Iterator[Response]:
        data = b"".join(map(b"".join, request.fragments()))
        status = self._statuses.pop(0) if self._statuses else 0
        if status == 0 or status & 0xF000 == 0xB000:
            self.taken[request.command.AffectedSOPInstanceUID] = data
        yield Response(status)


def get(held: Held, taker: Taker, storage: tuple[str, ...], **keys: Any) -> list[Response]:
    keys = keys or {"StudyInstanceUID": held.study}
    level = keys.pop("level", "STUDY")
    with associate(held, STUDY_ROOT_GET, storage, {"C-STORE": taker.store}) as association:
        return [response for _, response in association.get(STUDY_ROOT_GET, identifier(level, **keys))]


def test_get_sends_a_peer_only_what_it_can_show(held: Held) -> None:
    """The transfer syntaxes in which a peer is sent instances count on its own associations too."""
    taker = Taker()
    storage = (CT_IMAGE_STORAGE, BASIC_TEXT_SR_STORAGE)
    handlers = {"C-STORE": taker.store}
    with associate(held, STUDY_ROOT_GET, storage, handlers, calling="READER") as association:
        asked = identifier("STUDY", StudyInstanceUID=held.study)
        *_, (_, final) = association.get(STUDY_ROOT_GET, asked)
    assert (final.status, numbers(final)) == (0, (None, 4, 0, 0))
    assert taker.taken[held.uids[0]] == made.encoded(held.images[0], uid.ImplicitVRLittleEndian)


def test_get_returns_every_byte_and_counts_down(held: Held) -> None:
    taker = Taker()
    responses = get(held, taker, (CT_IMAGE_STORAGE, BASIC_TEXT_SR_STORAGE))
    assert list(taker.taken) == held.uids
    assert taker.taken[held.uids[0]] == made.encoded(held.images[0])
    assert [numbers(response) for response in responses] == [
        (3, 1, 0, 0),
        (2, 2, 0, 0),
        (1, 3, 0, 0),
        (None, 4, 0, 0),
    ]
    assert [response.status for response in responses] == [0xFF00, 0xFF00, 0xFF00, 0x0000]


def test_get_of_a_sop_class_without_a_context_fails_that_sub_operation_alone(held: Held) -> None:
    taker = Taker()
    final = get(held, taker, (CT_IMAGE_STORAGE,))[-1]
    assert list(taker.taken) == held.uids[:3]
    assert (final.status, numbers(final)) == (0xB000, (None, 3, 1, 0))
    assert failed_list(final) == held.uids[3:]


def test_get_that_can_send_nothing_says_so(held: Held) -> None:
    final = get(held, Taker(), ())[-1]
    assert (final.status, numbers(final)) == (0xA702, (None, 0, 4, 0))
    assert sorted(failed_list(final)) == sorted(held.uids)


def test_get_counts_warnings_and_failures_of_the_requestor(held: Held) -> None:
    taker = Taker(0x0000, 0xB000, 0xC000, 0x0000)
    final = get(held, taker, (CT_IMAGE_STORAGE, BASIC_TEXT_SR_STORAGE))[-1]
    assert (final.status, numbers(final)) == (0xB000, (None, 2, 1, 1))
    assert failed_list(final) == [held.uids[2]]


def test_get_without_matches_succeeds_with_nothing(held: Held) -> None:
    (final,) = get(held, Taker(), (CT_IMAGE_STORAGE,), StudyInstanceUID=uid.generate_uid())
    assert (final.status, numbers(final)) == (0x0000, (None, 0, 0, 0))


def test_get_at_the_levels_below(held: Held) -> None:
    storage = (CT_IMAGE_STORAGE, BASIC_TEXT_SR_STORAGE)
    series, image = Taker(), Taker()
    keys = {"StudyInstanceUID": held.study, "SeriesInstanceUID": held.series}
    get(held, series, storage, level="SERIES", **keys)
    get(held, image, storage, level="IMAGE", SOPInstanceUID=[held.uids[0], held.uids[2]], **keys)
    assert list(series.taken) == held.uids[:3]
    assert sorted(image.taken) == sorted([held.uids[0], held.uids[2]])


def test_get_that_is_cancelled_stops_and_says_what_remains(held: Held) -> None:
    taker = Taker()
    with associate(held, STUDY_ROOT_GET, (CT_IMAGE_STORAGE,), {"C-STORE": taker.store}) as association:
        asked = identifier("STUDY", StudyInstanceUID=held.study)
        for _ in association.get(STUDY_ROOT_GET, asked):
            break
        assert association.is_established
        assert len(taker.taken) < 3
    assert held.node.server.association_count <= 1


def test_get_of_a_damaged_instance_fails_that_one_alone(held: Held) -> None:
    location = held.node.stored(held.uids[1]).location
    with held.node.services.storage.path(location).open("r+b") as file:
        file.seek(location.offset + location.length - 2)
        file.write(b"\xff")
    taker = Taker()
    final = get(held, taker, (CT_IMAGE_STORAGE, BASIC_TEXT_SR_STORAGE))[-1]
    assert (final.status, numbers(final)) == (0xB000, (None, 3, 1, 0))
    assert failed_list(final) == [held.uids[1]]
    assert held.uids[1] not in taker.taken


# --- C-MOVE -----------------------------------------------------------------------


def move(held: Held, destination: str, **keys: Any) -> list[Response]:
    keys = keys or {"StudyInstanceUID": held.study}
    with associate(held, STUDY_ROOT_MOVE) as association:
        asked = identifier("STUDY", **keys)
        return [response for _, response in association.move(STUDY_ROOT_MOVE, asked, destination)]


def test_move_sends_all_on_one_association_and_names_its_originator(held: Held) -> None:
    responses = move(held, "PACS")
    assert held.pacs.stored == held.uids
    assert held.pacs.associations == 1
    assert held.pacs.originators == {("WORKSTATION", 1)}
    assert [(response.status, numbers(response)) for response in responses] == [
        (0xFF00, (3, 1, 0, 0)),
        (0xFF00, (2, 2, 0, 0)),
        (0xFF00, (1, 3, 0, 0)),
        (0x0000, (None, 4, 0, 0)),
    ]


@pytest.mark.parametrize(
    ("destination", "why"),
    [("NOBODY", "is not in the configuration"), ("ONLYCALLS", "has no host and port here")],
)
def test_move_to_where_nothing_is_sent_is_refused_and_noted(held: Held, destination: str, why: str) -> None:
    (final,) = move(held, destination)
    assert (final.status, final.comment) == (0xA801, f"the peer {destination} {why}")
    [refused] = held.node.services.refusals.refused_so_far()
    assert (refused.reason, refused.detail) == ("C-MOVE to where nothing is sent", final.comment)
    assert "[[peers]] table" in refused.action


def test_move_to_a_destination_that_is_down_names_all_as_failed(held: Held) -> None:
    final = move(held, "DOWN")[-1]
    assert (final.status, numbers(final)) == (0xA702, (None, 0, 4, 0))
    assert sorted(failed_list(final)) == sorted(held.uids)


def test_move_counts_what_the_destination_refuses(held: Held) -> None:
    held.pacs.statuses = {held.uids[0]: [0xC000], held.uids[1]: [0xB007], held.uids[2]: [0x0111]}
    final = move(held, "PACS")[-1]
    assert (final.status, numbers(final)) == (0xB000, (None, 1, 1, 2))
    assert failed_list(final) == [held.uids[0]]
    assert "because of the script" in final.comment


def test_move_sends_the_others_when_the_destination_aborts_over_one(held: Held) -> None:
    held.pacs.aborts_on.add(held.uids[1])
    final = move(held, "PACS")[-1]
    assert (final.status, numbers(final)) == (0xB000, (None, 3, 1, 0))
    assert failed_list(final) == [held.uids[1]]
    assert held.pacs.stored == [held.uids[0], *held.uids[2:]]
    assert held.pacs.associations == 2


def test_move_gives_up_a_destination_that_aborts_over_one_after_the_other(held: Held) -> None:
    held.pacs.aborts_on.update(held.uids)
    final = move(held, "PACS")[-1]
    assert (final.status, numbers(final)) == (0xA702, (None, 0, 4, 0))
    assert sorted(failed_list(final)) == sorted(held.uids)
    assert held.pacs.associations == 3


def test_move_without_matches_succeeds_with_nothing(held: Held) -> None:
    (final,) = move(held, "PACS", StudyInstanceUID=uid.generate_uid())
    assert (final.status, numbers(final)) == (0x0000, (None, 0, 0, 0))
    assert held.pacs.associations == 0


def test_move_that_is_cancelled_ends_with_fe00_and_right_numbers(held: Held) -> None:
    """The cancel is sent after the first pending response; pynetdicom reads on to the final one."""
    ae = AE("WORKSTATION")
    ae.add_requested_context(STUDY_ROOT_MOVE)
    association = ae.associate("127.0.0.1", held.node.port, ae_title="ANODE")
    assert association.is_established
    more = [made.ct_image(study_instance_uid=held.study, series_instance_uid=held.series) for _ in range(200)]
    held.node.receive(*more)
    try:
        asked = identifier("STUDY", StudyInstanceUID=held.study)
        final = None
        for number, (status, _) in enumerate(
            association.send_c_move(asked, "PACS", STUDY_ROOT_MOVE, msg_id=7)
        ):
            if number == 0:
                association.send_c_cancel(7, query_model=STUDY_ROOT_MOVE)
            final = status
        assert final is not None
        assert final.Status == 0xFE00
        done = final.NumberOfCompletedSuboperations
        assert 0 < done < 204
        assert final.NumberOfRemainingSuboperations == 204 - done
        assert len(held.pacs.stored) == done
    finally:
        association.release()


@pytest.mark.parametrize("level", ["PATIENT", "SOMETHING"])
def test_an_identifier_that_fits_no_level_of_the_model_is_refused(held: Held, level: str) -> None:
    with associate(held, STUDY_ROOT_MOVE) as association:
        asked = identifier(level, PatientID="PHANTOM-1")
        (final,) = (response for _, response in association.move(STUDY_ROOT_MOVE, asked, "PACS"))
    assert final.status in (0xA900, 0xC000)


# --- real peers -------------------------------------------------------------------


@pytest.mark.parametrize("preferred", ["+x=", "+xe", "+xb", "+xi", "+xs", "+xv", "+xt", "+xr", "+xd"])
def test_dcmtk_gets_a_study_whatever_it_prefers(held: Held, tmp_path: Path, preferred: str) -> None:
    """It offers the syntax that it prefers and the uncompressed ones in one context for a class."""
    folder = tmp_path / "got"
    folder.mkdir()
    dcmtk(
        "getscu", "-S", preferred, "-aec", "ANODE", "-od", folder, "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={held.study}", "127.0.0.1", held.node.port,
    )  # fmt: skip
    got = [pydicom.dcmread(path) for path in folder.iterdir()]
    assert sorted(one.SOPInstanceUID for one in got) == sorted(held.uids)
    image = next(one for one in got if one.SOPInstanceUID == held.uids[0])
    assert image.PixelData == held.images[0].PixelData


def test_dcmtk_moves_a_study_to_dcmtk(tmp_path: Path, exits: ExitStack) -> None:
    folder, port = tmp_path / "moved", free_port()
    folder.mkdir()
    dcmtk("storescp", "--version")
    receiver = subprocess.Popen(
        ["storescp", "-aet", "KEEPER", "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    exits.callback(receiver.wait)
    exits.callback(receiver.terminate)
    keeper = PeerConfig("KEEPER", "127.0.0.1", port)
    node = exits.enter_context(small_node(config(tmp_path / "node", peers=[keeper])))
    study = uid.generate_uid()
    sent = node.receive(*(made.ct_image(study_instance_uid=study) for _ in range(3)))

    def is_listening() -> bool:
        return "Association Accepted" in dcmtk(
            "echoscu", "-v", "-aec", "KEEPER", "127.0.0.1", port, check=False
        )

    wait_until(is_listening, what="storescp")
    dcmtk(
        "movescu", "-S", "-aec", "ANODE", "-aem", "KEEPER", "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={study}", "127.0.0.1", node.port,
    )  # fmt: skip
    moved = [pydicom.dcmread(path).SOPInstanceUID for path in folder.iterdir()]
    assert sorted(moved) == sorted(sent)
