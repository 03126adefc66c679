"""What the node makes is taken in whole, once, and never starts anything when it comes back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.config.settings import Config, RouteConfig, StorageConfig
from node.errors import ConflictingInstance, DatabaseFailure
from node.index.index import StoredInstance
from tests.support import made
from tests.support.ingest_bench import EXPLICIT, Bench, ingest_bench

CONFIG = Config(
    storage=StorageConfig(segment_bytes=1 << 20, free_space_reserve_bytes=0),
    routes=(RouteConfig(send_to=("PACS",)),),
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ingest_bench(tmp_path / "data", CONFIG) as one:
        yield one


def result(**attributes) -> Dataset:
    purpose = Dataset()
    purpose.CodeValue = "109102"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    equipment = Dataset()
    equipment.Manufacturer = "anode"
    equipment.PurposeOfReferenceCodeSequence = Sequence([purpose])
    attributes = {
        "Manufacturer": "anode",
        "ContributingEquipmentSequence": Sequence([equipment]),
        **attributes,
    }
    return made.instance(**attributes)


def nothing(connection) -> None:
    """What follows, where nothing follows."""


def own(bench: Bench, *results: Dataset, then=nothing) -> list[StoredInstance]:
    return bench.ingest.own([made.part10(one) for one in results], then=then)


def arrivals(bench: Bench) -> int:
    with bench.database.read() as connection:
        return connection.execute("SELECT COUNT(*) FROM study_arrival").fetchone()[0]


def assert_starts_nothing(bench: Bench) -> None:
    assert arrivals(bench) == 0
    assert bench.jobs("deliver") == []


def send_back(bench: Bench, data_set: Dataset, syntax: str = EXPLICIT) -> str:
    return bench.receive(
        made.encoded(data_set, syntax),
        sop_class_uid=data_set.SOPClassUID,
        sop_instance_uid=data_set.SOPInstanceUID,
        transfer_syntax_uid=syntax,
        calling_ae_title="PACS",
    ).outcome


@pytest.mark.checklist("N1", "N2")
def test_results_are_stored_as_own_and_settled_but_start_nothing(bench):
    results = [result(), result()]
    held = own(bench, *results)
    assert [one.sop_instance_uid for one in held] == [one.SOPInstanceUID for one in results]
    assert all(one.is_own and one.provenance.own for one in held)
    assert [bench.bytes_of(one) for one in held] == [made.encoded(one) for one in results]
    assert len(bench.jobs("settle")) == 2
    assert_starts_nothing(bench)


def test_what_follows_happens_with_the_results_or_not_at_all(bench):
    one = result()

    def fails(connection) -> None:
        raise DatabaseFailure("the run cannot be recorded")

    with pytest.raises(DatabaseFailure):
        own(bench, one, then=fails)
    assert bench.held(one.SOPInstanceUID) is None
    seen: list[bool] = []

    def follows(connection) -> None:
        seen.append(bench.index.get(connection, one.SOPInstanceUID) is not None)

    own(bench, one, then=follows)
    assert seen == [True]


def test_taking_the_same_results_in_again_changes_nothing(bench, tmp_path):
    one = result()
    first, second = own(bench, one), own(bench, one)
    assert first == second
    assert len(bench.jobs("settle")) == 1
    assert len(bench.records()) == 1


@pytest.mark.checklist("N2")
def test_other_content_under_the_uid_of_a_result_is_refused(bench):
    one = result()
    own(bench, one)
    changed = copy.deepcopy(one)
    changed.InstanceNumber = 9
    with pytest.raises(ConflictingInstance):
        own(bench, changed)


@pytest.mark.parametrize("syntax", [EXPLICIT, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.checklist("N1")
def test_a_result_that_a_pacs_sends_back_is_the_same(bench, syntax):
    one = result()
    own(bench, one)
    assert send_back(bench, one, syntax) == "same"
    assert_starts_nothing(bench)


def test_a_result_that_is_no_longer_known_is_known_by_its_marks(bench):
    one = result()
    assert send_back(bench, one) == "stored"
    assert bench.held(one.SOPInstanceUID).is_own
    assert_starts_nothing(bench)


def test_a_manufacturer_alone_is_no_mark(bench):
    for other in (made.instance(Manufacturer="anode"), result(Manufacturer="somebody else")):
        send_back(bench, other)
        assert not bench.held(other.SOPInstanceUID).is_own
    assert arrivals(bench) == 2


def test_own_results_that_were_never_indexed_are_not_found_in_part_after_a_restart(bench, tmp_path):
    """All of them or none: their job makes them again, under the same UIDs."""
    results = [result(), made.instance()]

    def fails(connection) -> None:
        raise DatabaseFailure("stopped here")

    with pytest.raises(DatabaseFailure):
        own(bench, *results, then=fails)
    with bench.restarted() as restarted:
        assert restarted.ingest.replay() == 0
        assert [restarted.held(one.SOPInstanceUID) for one in results] == [None, None]
        held = own(restarted, *results)
        assert all(one.is_own for one in held)
        assert [restarted.bytes_of(one) for one in held] == [made.encoded(one) for one in results]
        assert_starts_nothing(restarted)
