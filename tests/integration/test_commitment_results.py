"""Results that were delivered are confirmed by storage commitment, where the peer offers it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import uid

from node import confirmations
from tests.support import made
from tests.support.manual_clock import ManualClock
from tests.support.scripted_pacs import ScriptedPacs, scripted_pacs
from tests.support.small_node import SmallNode, config, small_node


class Delivered:
    """A node that has delivered two results to a PACS; their confirmation is due."""

    def __init__(self, exits: ExitStack, folder: Path, *, confirm: bool = True, **script: Any) -> None:
        self.clock = ManualClock()
        self.pacs: ScriptedPacs = exits.enter_context(scripted_pacs(**script))
        peer = self.pacs.peer(confirm_results=confirm)
        self.node: SmallNode = exits.enter_context(
            small_node(config(folder, peers=[peer], network_timeout_seconds=5.0), self.clock)
        )
        self.pacs.node_port = self.node.port
        self.study = uid.generate_uid()
        self.results = self.node.receive(*(made.instance(study_instance_uid=self.study) for _ in range(2)))

    def deliver(self, *sop_instance_uids: str, reason: str = "result") -> None:
        self.node.enqueue_delivery("PACS", *sop_instance_uids, reason=reason)
        self.node.engine.run_until_idle(30)

    def confirm(self) -> dict[str, Any]:
        """Let the time of the confirmation come; return its job."""
        self.clock.advance(5)
        self.node.engine.run_until_idle(30)
        (job,) = self.node.jobs(kind="confirm")
        return job

    def states(self) -> list[str]:
        with self.node.services.database.read() as connection:
            items = {
                item.sop_instance_uid: item.state for item in confirmations.of_study(connection, self.study)
            }
        return [items[one] for one in self.results if one in items]


@pytest.fixture
def exits() -> Iterator[ExitStack]:
    with ExitStack() as made_exits:
        yield made_exits


@pytest.mark.parametrize("reports", ["same", "new"])
@pytest.mark.checklist("W2")
def test_a_peer_confirms_on_the_same_association_or_on_a_new_one(
    exits: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: str
) -> None:
    if reports == "new":
        monkeypatch.setattr("node.tasks.confirm.REPORT_SECONDS", 0.5)
    delivered = Delivered(exits, tmp_path, reports=reports)
    delivered.deliver(*delivered.results)
    assert delivered.states() == ["wanted", "wanted"]
    delivered.confirm()
    assert delivered.confirm()["state"] == "done"
    assert delivered.states() == ["held", "held"]
    assert [sorted(asked) for asked in delivered.pacs.asked] == [sorted(delivered.results)]
    assert delivered.pacs.report_statuses == [0]


def test_what_was_only_forwarded_is_not_asked_for(exits: ExitStack, tmp_path: Path) -> None:
    delivered = Delivered(exits, tmp_path)
    delivered.deliver(*delivered.results, reason="route")
    assert delivered.node.jobs(kind="confirm") == []


def test_a_peer_that_shall_not_confirm_is_not_asked(exits: ExitStack, tmp_path: Path) -> None:
    delivered = Delivered(exits, tmp_path, confirm=False)
    delivered.deliver(*delivered.results)
    assert delivered.node.jobs(kind="confirm") == []


@pytest.mark.parametrize("script", [{"offers_commitment": False}, {"action_status": 0x0122}])
def test_a_peer_that_does_not_offer_it_is_recorded_as_such(
    exits: ExitStack, tmp_path: Path, script: dict[str, Any]
) -> None:
    delivered = Delivered(exits, tmp_path, **script)
    delivered.deliver(*delivered.results)
    assert delivered.confirm()["state"] == "done"
    assert delivered.states() == ["not-offered", "not-offered"]


@pytest.mark.checklist("W2")
def test_a_result_that_the_peer_does_not_hold_is_delivered_once_more(
    exits: ExitStack, tmp_path: Path
) -> None:
    delivered = Delivered(exits, tmp_path)
    lost, kept = delivered.results
    delivered.pacs.not_held[lost] = [0x0112]
    delivered.deliver(lost, kept)
    delivered.confirm()
    assert delivered.pacs.stored == [lost, kept, lost]
    assert delivered.confirm()["state"] == "done"
    assert delivered.states() == ["held", "held"]
    assert delivered.pacs.asked[1:] == [[lost]]


def test_a_result_that_the_peer_loses_twice_is_set_aside_with_the_reason(
    exits: ExitStack, tmp_path: Path
) -> None:
    delivered = Delivered(exits, tmp_path)
    lost, kept = delivered.results
    delivered.pacs.not_held[lost] = [0x0112, 0x0112]
    delivered.deliver(lost, kept)
    delivered.confirm()
    job = delivered.confirm()
    assert (job["state"], job["error_name"]) == ("set_aside", "confirmation-missing")
    assert "0112" in job["error"]
    assert delivered.states() == ["failed", "held"]
    assert len(delivered.pacs.stored) == 3
    delivered.clock.advance(60)
    delivered.node.services.database.write(delivered.node.services.queue.requeue)
    assert delivered.confirm()["state"] == "done"
    assert delivered.states() == ["held", "held"]


def test_a_peer_that_never_reports_is_waited_for_and_asked_again_later(
    exits: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.tasks.confirm.REPORT_SECONDS", 0.1)
    delivered = Delivered(exits, tmp_path, reports="never")
    delivered.deliver(*delivered.results)
    job = delivered.confirm()
    assert (job["state"], job["error_name"]) == ("ready", "confirmation-missing")
    delivered.confirm()
    assert len(delivered.pacs.asked) == 1
    delivered.clock.advance(1000)
    delivered.pacs.reports = "same"
    delivered.confirm()
    assert len(delivered.pacs.asked) == 2
    assert delivered.confirm()["state"] == "done"


def test_a_peer_that_refuses_is_asked_again(exits: ExitStack, tmp_path: Path) -> None:
    delivered = Delivered(exits, tmp_path, action_status=0x0213)
    delivered.deliver(*delivered.results)
    job = delivered.confirm()
    assert (job["state"], job["error_name"]) == ("ready", "peer-refused")
    assert delivered.states() == ["wanted", "wanted"]
    delivered.pacs.action_status = 0
    delivered.clock.advance(60)
    delivered.confirm()
    assert delivered.states() == ["held", "held"]
