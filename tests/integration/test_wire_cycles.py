"""Association after association, good ones and hostile ones: afterwards the node is as it was before.

``make cycles`` makes ten thousand of them; the tests a few hundred.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from node.wire import scu
from tests.support import hostile_peers, made, scripted_peer
from tests.support.anode_process import AnodeProcess
from tests.support.hostile_peers import ASSOCIATE_RQ, VIOLATIONS
from tests.support.retrieving import STUDY_ROOT_GET, connect, find, get_digests
from tests.support.scripted_peer import COMMAND, LAST, P_DATA_TF, ScriptedPeer, pdu, pdv
from tests.support.waiting import wait_until

COUNT = int(os.environ.get("ANODE_CYCLES") or 400)
WARMING_UP = 1200
AT_A_TIME = 6
# threads that come and go by the clock: three of the schedule, one that makes spare segments
_BY_THE_CLOCK = 4
_MOST_GROWTH_BYTES = 10 * 1024**2
_EXPLICIT, _CT = scripted_peer.EXPLICIT_VR_LITTLE_ENDIAN, made.CT_IMAGE_STORAGE
_STUDY = "1.2.3.4"
# held after the first round; the same again is Success, and nothing that grows
_IMAGES = [
    made.ct_image(study_instance_uid=_STUDY, series_instance_uid="1.2.3.5", InstanceNumber=number)
    for number in range(40)
]
_ENCODED = [made.encoded(image, _EXPLICIT) for image in _IMAGES]
_CONVERSATION = (
    ASSOCIATE_RQ + hostile_peers.ECHO + hostile_peers.STORE + pdu(P_DATA_TF, pdv(3, LAST, b"no data set"))
)


def _echo(port: int, number: int) -> None:
    with ScriptedPeer.to(port) as peer:
        peer.associate()
        peer.request(1, scripted_peer.echo_rq())
        assert peer.read_message()[0][0x0900] == 0
        peer.release()


def _store(port: int, number: int) -> None:
    with connect(port, [scu.ProposedContext(_CT, (_EXPLICIT,))]) as association:
        for index in (number % len(_IMAGES), (number + 1) % len(_IMAGES)):
            answer = association.send_store(
                association.contexts[1],
                sop_class_uid=_CT,
                sop_instance_uid=str(_IMAGES[index].SOPInstanceUID),
                data_set=_ENCODED[index],
            )
            assert answer.status == 0


def _find(port: int, number: int) -> None:
    found = find(port, "IMAGE", StudyInstanceUID=_STUDY, SeriesInstanceUID="1.2.3.5", SOPInstanceUID="")
    assert 0 < len(found) <= len(_IMAGES)


def _get(port: int, number: int) -> None:
    assert get_digests(port, {_CT: {_EXPLICIT}}, "STUDY", StudyInstanceUID=_STUDY)


def _get_and_leave(port: int, number: int) -> None:
    contexts = {1: (STUDY_ROOT_GET, (_EXPLICIT,)), 3: (_CT, (_EXPLICIT,))}
    get_rq = scripted_peer.command_set(e0002=STUDY_ROOT_GET, e0100=0x0010, e0110=1, e0700=0, e0800=1)
    with ScriptedPeer.to(port) as peer:
        peer.associate(contexts=contexts, more_user_items=scripted_peer.role(_CT, 0, 1))
        identifier = b"\x08\x00\x52\x00CS\x06\x00STUDY \x20\x00\x0d\x00UI\x08\x00" + _STUDY.encode() + b"\0"
        peer.request(1, get_rq, identifier)
        assert peer.read_pdu()[0] == P_DATA_TF


def _break_the_rules(port: int, number: int) -> None:
    attack = Random(number).choice(VIOLATIONS)
    with ScriptedPeer.to(port) as peer:
        peer.associate()
        peer.send(attack.sent)
        try:
            assert peer.read_abort() == attack.answer, attack.name
        except EOFError:
            assert attack.answer is None, attack.name


def _leave_at_some_byte(port: int, number: int) -> None:
    with ScriptedPeer.to(port) as peer:
        peer.send(_CONVERSATION[: Random(number).randrange(len(_CONVERSATION))])


def _abort_a_store(port: int, number: int) -> None:
    with ScriptedPeer.to(port) as peer:
        peer.associate()
        peer.send_pdv(3, COMMAND | LAST, scripted_peer.store_rq())
        peer.send_pdv(3, 0, bytes(number % 100_000))
        peer.send(hostile_peers.ABORT)
        peer.expect_end()


def _be_rejected(port: int, number: int) -> None:
    with ScriptedPeer.to(port) as peer:
        peer.send(scripted_peer.associate_rq(scripted_peer.CONTEXTS, called="NOBODY"))
        assert peer.read_pdu()[0] == scripted_peer.A_ASSOCIATE_RJ
        peer.close()


def _send_what_is_no_instance(port: int, number: int) -> None:
    with ScriptedPeer.to(port) as peer:
        peer.associate()
        peer.request(3, scripted_peer.store_rq(1, f"1.2.{number}"), bytes(range(256)) * (number % 50))
        assert int(peer.read_message()[0][0x0900]) & 0xF000 == 0xC000
        peer.release()


KINDS: list[Callable[[int, int], None]] = [
    _echo,
    _store,
    _break_the_rules,
    _find,
    _leave_at_some_byte,
    _break_the_rules,
    _abort_a_store,
    _get,
    _be_rejected,
    _send_what_is_no_instance,
    _leave_at_some_byte,
    _get_and_leave,
]


def _at_rest(node: AnodeProcess) -> tuple[int, int]:
    """What is open once that has not changed for a second."""
    seen: list[tuple[int, int]] = []

    def is_at_rest() -> bool:
        seen.append(node.open_now())
        return len(seen) > 100 and len(set(seen[-100:])) == 1

    wait_until(is_at_rest, 60.0, "the last associations to end")
    return seen[-1]


def _make(port: int, count: int) -> Counter[str]:
    """Make so many associations, of all kinds in turn, a few at a time."""

    def make(number: int) -> str:
        kind = KINDS[number % len(KINDS)]
        kind(port, number)
        return kind.__name__.strip("_")

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return Counter(pool.map(make, range(count)))


@pytest.mark.timeout(300 + COUNT)
def test_after_many_associations_threads_files_and_memory_are_as_before(tmp_path: Path) -> None:
    """Good ones, those that break the rules, and those that leave at any byte, a few at a time."""
    configuration = '[log]\nlevel = "ERROR"\n[limits]\nassociations = 64\n'
    with AnodeProcess(tmp_path / "node", configuration) as node:
        for number in range(0, len(_IMAGES), 2):
            _store(node.port, number)
        _make(node.port, WARMING_UP)
        descriptors, threads = _at_rest(node)
        before = node.resident_bytes()
        made_so_far = _make(node.port, COUNT)
        descriptors_then, threads_then = _at_rest(node)
        growth = node.resident_bytes() - before
        print(
            f"{COUNT} associations {dict(made_so_far)}: descriptors {descriptors} and {descriptors_then}, "
            f"threads {threads} and {threads_then}, {before / 1024**2:.1f} MiB and "
            f"{growth / 1024**2:+.1f}"
        )
        assert descriptors_then == descriptors
        assert threads_then <= threads + _BY_THE_CLOCK
        assert growth < _MOST_GROWTH_BYTES
        assert len(node.json("studies")) == 1
