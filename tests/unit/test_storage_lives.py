"""Whatever comes in whatever order, the receive log holds what was committed and is still needed."""

from __future__ import annotations

import hashlib
import random
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from node.clock import Clock
from node.config.settings import StorageConfig
from node.errors import NodeError
from node.storage import reception as reception_module
from node.storage.location import Location
from node.storage.reception import Reception
from node.storage.record import BLOCK_BYTES
from node.storage.storage import Storage

SYNTAX = "1.2.840.10008.1.2.1"
SEGMENT_BYTES = 6 * BLOCK_BYTES
FIRST_BYTES = SEGMENT_BYTES - 2 * BLOCK_BYTES
EDGES = [
    FIRST_BYTES + count * (SEGMENT_BYTES - 2 * BLOCK_BYTES) + blocks * BLOCK_BYTES
    for count in (0, 1, 2, 5)
    for blocks in (-1, 0, 1)
]

lengths = st.one_of(
    st.sampled_from([0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1]),
    st.builds(lambda edge, step: max(0, edge + step), st.sampled_from(EDGES), st.integers(-3, 3)),
    st.integers(0, 8 * SEGMENT_BYTES),
)
cuts = st.lists(st.integers(1, 3 * SEGMENT_BYTES), min_size=1, max_size=4)


class ReceiveLogMachine(RuleBasedStateMachine):
    """A receive log of tiny segments, beside a dict of what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._random = random.Random(7)
        self._held: dict[Location, bytes] = {}
        self._storage: Storage | None = None

    @initialize()
    def start(self) -> None:
        config = StorageConfig(segment_bytes=SEGMENT_BYTES, spare_segments=8, free_space_reserve_bytes=0)
        self._storage = Storage(Path(self._folder.name), config, Clock(), reclaim_grace_seconds=0.0)
        found = {record.location: record for record in self._storage.replay()}
        assert self._held.keys() <= found.keys()
        for location, data in self._held.items():
            assert found[location].data_set_sha256 == hashlib.sha256(data).hexdigest()
        self._storage.prepare(self._is_live)

    def _is_live(self, segment: str) -> bool:
        return any(location.path == segment for location in self._held)

    def _write(self, reception: Reception, length: int, cuts: list[int], at_once: int) -> bytes:
        data = self._random.randbytes(length)
        fragments, start = [], 0
        while start < length:
            count = cuts[len(fragments) % len(cuts)]
            fragments.append(memoryview(data)[start : start + count])
            start += count
        for first in range(0, len(fragments), at_once):
            reception.write(fragments[first : first + at_once])
        return data

    @rule(length=lengths, cuts=cuts, at_once=st.integers(1, 5))
    def receive(self, length: int, cuts: list[int], at_once: int) -> None:
        with self._storage.begin() as reception:
            data = self._write(reception, length, cuts, at_once)
            location = reception.commit(SYNTAX, "{}")
        assert location not in self._held
        self._held[location] = data

    @rule(mine=lengths, other=lengths, cuts=cuts)
    def receive_two_at_a_time(self, mine: int, other: int, cuts: list[int]) -> None:
        with self._storage.begin() as one, self._storage.begin() as two:
            first, second = self._write(one, mine, cuts, 2), self._write(two, other, cuts, 2)
            self._held[one.commit(SYNTAX, "{}")] = first
            self._held[two.commit(SYNTAX, "{}")] = second

    @rule(length=lengths, cuts=cuts)
    def give_up(self, length: int, cuts: list[int]) -> None:
        with self._storage.begin() as reception:
            self._write(reception, length, cuts, 1)

    @rule(choice=st.randoms(use_true_random=False))
    def need_no_more(self, choice: random.Random) -> None:
        if self._held:
            del self._held[choice.choice(sorted(self._held, key=str))]

    @rule()
    def reclaim(self) -> None:
        self._storage.reclaim(self._is_live)

    @rule()
    def restart(self) -> None:
        self._storage.close()
        self.start()

    @rule(length=lengths, cuts=cuts, is_sealed=st.booleans())
    def crash(self, length: int, cuts: list[int], is_sealed: bool) -> None:
        """The reception is never left: what was written is there, and nothing is put in order."""
        reception = self._storage.begin()
        data = self._write(reception, length, cuts, 1)
        if is_sealed:
            self._held[reception.commit(SYNTAX, "{}")] = data
        self._storage.close()
        self.start()

    @invariant()
    def everything_needed_is_there(self) -> None:
        for location, data in self._held.items():
            with self._storage.open(location) as file:
                assert file.read() == data

    @invariant()
    def no_file_has_grown(self) -> None:
        for path in (Path(self._folder.name) / "log").glob("*.seg"):
            with suppress(FileNotFoundError):  # a surplus one may be removed meanwhile
                assert path.stat().st_size == SEGMENT_BYTES

    def teardown(self) -> None:
        if self._storage is not None:
            self._held.clear()
            try:
                self._storage.reclaim(self._is_live)
            except NodeError as error:
                raise AssertionError("what nobody needs cannot be freed") from error
            self._storage.close()
            assert len(list((Path(self._folder.name) / "log").glob("*.seg"))) <= 16
        self._folder.cleanup()


@pytest.mark.parametrize("at_hand", [BLOCK_BYTES, 2 * SEGMENT_BYTES])
@pytest.mark.parametrize("moved", [0, BLOCK_BYTES, 64 * SEGMENT_BYTES])
def test_the_receive_log_holds_what_was_committed_and_is_needed(monkeypatch, at_hand, moved):
    monkeypatch.setattr(reception_module, "START_BYTES", at_hand)
    monkeypatch.setattr(reception_module, "_MOVE_BYTES", moved)
    monkeypatch.setattr(reception_module, "_FLUSH_BYTES", 3 * BLOCK_BYTES)
    ReceiveLogMachine.TestCase.settings = settings(
        max_examples=12,
        stateful_step_count=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    ReceiveLogMachine.TestCase().runTest()
