"""Rows of ``anode why`` from facts alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from node.alarms import DISK_FULL, Alarm
from node.config.settings import AnalysisConfig, RouteConfig
from node.confirmations import Confirmation
from node.explanation.explanation import explain, state_of
from node.explanation.facts import Facts, Row
from node.parking import Parked

NOW = 1_000_000.0
LUNGS = AnalysisConfig("lungs", "lungs")
OTHER = AnalysisConfig("other", "lungs")
FACTS = Facts(study_instance_uid="1.2.3", now=NOW, node_is_running=True, command_options=" --config x")


def job(kind: str, state: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    payload: Mapping[str, Any] = {"analysis": "lungs", "series_instance_uid": "1.2.3.4", "revision": 1}
    if kind == "deliver":
        payload = {"peer": "PACS", "reason": "result", "sop_instance_uid": f"1.{number}"}
    return {
        "id": number,
        "kind": kind,
        "lane": "PACS" if kind == "deliver" else "",
        "payload": payload,
        "state": state,
        "attempts": 1,
        "created_at": NOW - 100,
        "next_try_at": NOW + 30 if state == "ready" else None,
        "finished_at": NOW - 5 if state == "done" else None,
        "failed_at": NOW - 10 if changes.get("error_name") else None,
        "error_name": "",
        "error": "",
        "action": "",
        **changes,
    }


def run(state: str, **changes: Any) -> dict[str, Any]:
    return {
        "analysis": "lungs",
        "series_instance_uid": "1.2.3.4",
        "revision": 1,
        "state": state,
        "reason": "",
        "recorded_at": NOW - 50,
        "model": "",
        "input_digest": "",
        "result_sop_instance_uids": [],
        "facts": {},
        **changes,
    }


COMPLETED = run("completed", result_sop_instance_uids=["1.1", "1.2", "1.3"])
OTHER_COMPLETED = {**COMPLETED, "series_instance_uid": "1.2.3.5"}
DELIVERED = [job("deliver", "done", number) for number in (1, 2, 3)]
QUIET = {
    "analysis": "lungs", "revision": 1, "last_arrival": NOW - 20, "quiet_seconds": 60.0, "due_at": NOW + 40,
    "waits_for": [],
}  # fmt: skip


def only(facts: Facts) -> Row:
    (row,) = explain(facts)
    return row


def test_a_selection_that_waits_for_an_earlier_study_says_so_and_until_when() -> None:
    waits = job("select", "ready")
    waits["payload"] = {**waits["payload"], "waits_since": NOW - 100}
    row = only(replace(FACTS, analyses=[LUNGS], jobs=[waits]))
    assert row.explanation == "It waits until an earlier study of the patient has arrived."
    assert (row.state, row.next_try) == ("waiting", NOW + 30)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "stored"),
        ({"analyses": [LUNGS], "waiting": [QUIET]}, "receiving"),
        ({"analyses": [LUNGS], "jobs": [job("select", "ready")]}, "complete"),
        ({"analyses": [LUNGS], "runs": [run("queued")], "jobs": [job("analyze", "leased")]}, "complete"),
        ({"analyses": [LUNGS], "runs": [COMPLETED]}, "analysed"),
        ({"analyses": [LUNGS], "runs": [COMPLETED], "jobs": [job("deliver", "ready")]}, "analysed"),
        ({"analyses": [LUNGS], "runs": [COMPLETED], "jobs": DELIVERED}, "returned"),
        ({"analyses": [LUNGS], "runs": [run("no-match", series_instance_uid="")]}, "stored"),
        ({"analyses": [LUNGS]}, "stored"),
        ({"analyses": [LUNGS, OTHER], "runs": [COMPLETED], "jobs": DELIVERED}, "returned"),
        ({"analyses": [LUNGS], "stale_configuration": "config.toml was changed"}, "stored"),
        ({"damaged": [("1.2.3", "damaged: its SHA-256 is another")]}, "stopped"),
        ({"analyses": [LUNGS], "runs": [run("not-a-volume")]}, "refused"),
        ({"analyses": [LUNGS], "runs": [run("unfit-input"), OTHER_COMPLETED], "jobs": DELIVERED}, "returned"),
        ({"analyses": [LUNGS], "runs": [run("unfit-input"), run("failed", revision=2)]}, "stopped"),
        ({"analyses": [LUNGS], "runs": [run("two-patients", series_instance_uid="")]}, "stopped"),
        (
            {
                "analyses": [LUNGS],
                "runs": [COMPLETED],
                "jobs": [job("deliver", "set_aside", error_name="peer-refused", error="A900")],
            },
            "stopped",
        ),
        ({"jobs": [job("settle", "set_aside", error_name="integrity-failure", error="bad")]}, "stopped"),
        ({"alarms": [Alarm(DISK_FULL, "full", NOW, NOW)]}, "stored"),
    ],
)
def test_one_word_says_how_far_a_study_has_come(changes: dict[str, Any], state: str) -> None:
    assert state_of(replace(FACTS, **changes)) == state


def test_deliveries_of_one_fate_are_one_row() -> None:
    down = {"error_name": "peer-unreachable", "error": "no connection to PACS"}
    jobs = [*DELIVERED, job("deliver", "ready", 4, **down), job("deliver", "ready", 5, **down)]
    done, waiting = explain(replace(FACTS, jobs=jobs))
    assert done == Row("results to PACS", "done", "done", "Delivered: 3 instances.", since=NOW - 5)
    assert (waiting.state, waiting.cause, waiting.next_try) == ("retrying", "peer-unreachable", NOW + 30)
    assert waiting.explanation.startswith("2 instances: No connection to PACS.")
    assert waiting.command == "anode echo PACS --config x"


def test_a_delivery_that_is_given_up_is_no_longer_said_to_be_tried() -> None:
    row = only(
        replace(FACTS, jobs=[job("deliver", "set_aside", error_name="peer-unreachable", error="down")])
    )
    assert (row.state, row.next_try) == ("stopped", None)
    assert "not tried any more" in row.explanation
    assert row.command == "anode retry --study 1.2.3 --config x"


def test_a_node_that_does_not_run_is_the_first_reason() -> None:
    rows = explain(replace(FACTS, node_is_running=False, analyses=[LUNGS], waiting=[QUIET]))
    assert [row.cause for row in rows] == ["node-stopped", "waiting-for-quiet"]
    assert rows[0].command == "anode run --config x"
    assert explain(replace(FACTS, node_is_running=False)) == []


def test_each_series_shows_its_latest_run() -> None:
    runs = [
        run("no-match", series_instance_uid="", revision=1),
        run("completed", revision=2),
        run("superseded", revision=3),
        run("not-a-volume", revision=3, series_instance_uid="1.2.3.5", reason="the spacing is uneven"),
    ]
    rows = explain(replace(FACTS, analyses=[LUNGS], runs=runs))
    assert [(row.about, row.cause) for row in rows] == [
        ("analysis lungs, series 1.2.3.5", "not-a-volume"),
        ("analysis lungs, series 1.2.3.4", "done"),
    ]


def test_an_analysis_that_was_configured_later_says_so() -> None:
    row = only(replace(FACTS, analyses=[LUNGS]))
    assert row.state == "idle"
    assert (row.cause, row.command) == ("not-selected", "anode retry --study 1.2.3 --again --config x")


def test_a_route_that_takes_nothing_says_which_keyword_differed() -> None:
    route = RouteConfig({"Modality": "MG"}, ("PACS",))
    headers = [{"Modality": "CT"}, {"Modality": "SR", "is_own": True}]
    row = only(replace(FACTS, routes=[route], series_headers=headers))
    assert (row.about, row.state, row.cause) == ("route 1 to PACS", "idle", "no-match")
    assert row.explanation == "No series matches: Modality is 'CT', the route wants 'MG'."
    assert explain(replace(FACTS, routes=[route], series_headers=[*headers, {"Modality": "MG"}])) == []


def test_a_route_for_results_says_that_they_go_by_send_to_alone() -> None:
    route = RouteConfig({"Modality": ("SR", "OT")}, ("PACS",))
    headers = [{"Modality": "CT"}, {"Modality": "SR", "is_own": "1"}]
    row = only(replace(FACTS, routes=[route], series_headers=headers))
    assert row.explanation == (
        "No series matches: Modality is 'CT', the route wants 'SR' or 'OT'. Routes never send what the node "
        "made itself: results go by the 'send_to' of their analysis alone."
    )


def test_an_error_without_advice_of_ours_brings_its_own() -> None:
    failed = job("analyze", "set_aside", error_name="unexpected-failure", error="it broke", action="look")
    row = only(replace(FACTS, analyses=[LUNGS], runs=[run("queued")], jobs=[failed]))
    assert row.explanation == "It broke. 1 try so far. Look."
    assert row.command == "anode retry --study 1.2.3 --config x"


def test_a_changed_configuration_comes_before_the_advice_to_select_again() -> None:
    changed = "config.toml was changed after the node started; restart it so that it counts"
    first, second = explain(replace(FACTS, analyses=[LUNGS], stale_configuration=changed))
    assert (first.about, first.state, first.cause) == ("node", "stopped", "config-changed")
    assert first.explanation == f"{changed}."
    assert "restart the node and select again" in second.explanation


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([], "Delivered: 3 instances."),
        (["held"] * 3, "Delivered: 3 instances; confirmed by storage commitment."),
        (["wanted", "asked", "sent-again"], "Delivered: 3 instances; confirmation pending."),
        (["not-offered"] * 3, "Delivered: 3 instances; the peer offers no storage commitment."),
        (
            ["held", "held", "asked"],
            "Delivered: 3 instances; of 1: confirmation pending; of 2: confirmed by storage commitment.",
        ),
    ],
)
def test_delivered_results_say_what_the_peer_confirmed(states: list[str], told: str) -> None:
    said = [
        Confirmation("PACS", f"1.{number}", "1.2", "1.2.3", state, None, 0, NOW)
        for number, state in enumerate(states, 1)
    ]
    elsewhere = Confirmation("OTHER", "1.1", "1.2", "1.2.3", "failed", 0x0112, 1, NOW)
    assert only(replace(FACTS, jobs=DELIVERED, confirmations=[*said, elsewhere])).explanation == told


def test_a_route_back_to_the_sender_is_told_only_where_it_matches() -> None:
    route = RouteConfig({"Modality": "CT"}, ("MOD", "PACS"))
    facts = replace(FACTS, routes=[route], series_headers=[{"Modality": "CT"}])
    assert explain(replace(facts, senders=frozenset({"OTHER"}))) == []
    row = only(replace(facts, senders=frozenset({"MOD"})))
    assert (row.about, row.state, row.cause) == ("route 1 to MOD", "idle", "is-the-sender")
    assert row.explanation == "The route to MOD does not return it to its sender."
    several = only(replace(facts, senders=frozenset({"MOD", "OTHER"})))
    assert several.explanation == "The route to MOD does not return to it what it sent itself."


def test_a_job_of_a_node_that_was_killed_is_not_said_to_run() -> None:
    rows = explain(replace(FACTS, node_is_running=False, jobs=[job("deliver", "leased")]))
    assert [(row.state, row.cause) for row in rows] == [("stopped", "node-stopped"), ("waiting", "queued")]


def test_an_analysis_that_waits_for_another_says_for_which_once_the_study_is_quiet() -> None:
    waiting = {**QUIET, "waits_for": ["mr type", "quality"]}
    facts = replace(FACTS, analyses=[LUNGS], waiting=[waiting])
    assert only(facts).cause == "waiting-for-quiet"
    facts = replace(facts, now=NOW + 50)
    row = only(facts)
    assert (row.state, row.cause, row.since) == ("waiting", "waiting-for-analysis", NOW + 40)
    assert row.explanation == (
        "It starts when the analysis mr type and the analysis quality is over for this study."
    )
    assert row.command == "anode why 1.2.3 --config x"
    assert state_of(facts) == "complete"
    row = only(replace(facts, parked={"mr type": Parked("it crashed", NOW)}))
    assert row.explanation.endswith("mr type is parked: It crashed.")
    assert row.command == "anode retry --analysis 'mr type' --config x"


def test_a_job_of_a_parked_analysis_says_how_to_let_it_run_again() -> None:
    aside = job("analyze", "set_aside", error_name="analysis-parked", error="analysis lungs is parked")
    row = only(replace(FACTS, analyses=[LUNGS], runs=[run("failed")], jobs=[aside]))
    assert (row.state, row.cause) == ("stopped", "analysis-parked")
    assert row.explanation.startswith("Analysis lungs is parked. 1 try so far.")
    assert row.command == "anode retry --analysis lungs --config x"


def test_a_missing_input_says_what_is_missing_and_that_it_may_be_sent() -> None:
    reason = "no series of the study matches the input 'pet': there is no other series"
    row = only(replace(FACTS, analyses=[LUNGS], runs=[run("unfit-input", reason=reason)]))
    assert (row.state, row.cause) == ("refused", "unfit-input")
    assert row.explanation.startswith("No series of the study matches the input 'pet'")
    assert "send what is fit or missing" in row.explanation
    assert row.command == "anode retry --study 1.2.3 --again --config x"


def test_a_completed_run_says_what_it_found_and_with_what_it_compared() -> None:
    facts = {"fat volume": ("2341.71234567",), "bone": ("found",), "mean": (), "quality": ("QC-PASS", "1")}
    completed = {**COMPLETED, "reason": "compared with the study of 1959-12-09", "facts": facts}
    row = only(replace(FACTS, analyses=[LUNGS], runs=[completed]))
    assert row.explanation == (
        "Completed: 3 result objects. Compared with the study of 1959-12-09. "
        "Found: mean withheld, fat volume 2341.71, bone found, quality QC-PASS."
    )
    assert row.found == facts
    many = {f"number {number}": (str(number),) for number in range(300)}
    row = only(replace(FACTS, analyses=[LUNGS], runs=[run("unchanged", reason="as it was", facts=many)]))
    assert row.explanation.startswith("As it was. Found: number 0 0, number 1 1")
    assert row.explanation.endswith("and 292 more.")


def test_a_result_names_what_made_it_and_the_command_that_shows_its_picture() -> None:
    made_by = {"model": "lungs 1.2 0a1b2c3d", "input_digest": "ab" * 32}
    completed = {**COMPLETED, **made_by}
    kinds = {"1.1": "sr", "1.2": "image", "1.3": "sc"}
    facts = replace(FACTS, analyses=[LUNGS], runs=[completed], kinds_of_results=kinds)
    row = only(facts)
    assert (row.model, row.input_digest) == ("lungs 1.2 0a1b2c3d", "ab" * 32)
    assert row.results == ["1.1", "1.2", "1.3"]
    assert (row.picture, row.command) == ("anode show 1.3 -o picture.png --config x", "")
    # what was analysed once more and is as it was keeps the results
    unchanged = run("unchanged", revision=2, **{**made_by, "model": "lungs 1.2 0a1b2c3d"})
    again = only(replace(facts, runs=[completed, unchanged]))
    assert (again.results, again.picture) == (row.results, row.picture)
    # a derived image is one too; a report is none
    assert only(replace(facts, kinds_of_results={"1.1": "sr", "1.2": "image"})).picture.startswith(
        "anode show 1.2 "
    )
    assert only(replace(facts, kinds_of_results={"1.1": "sr"})).picture == ""


def test_a_refusal_says_that_an_earlier_result_stands() -> None:
    refused = run("unfit-input", revision=2, reason="2 series match")
    earlier = "The result of an earlier run of this series still stands where it was sent."
    row = only(replace(FACTS, analyses=[LUNGS], runs=[COMPLETED, refused]))
    assert (row.state, row.explanation.endswith(earlier)) == ("refused", True)
    row = explain(replace(FACTS, analyses=[LUNGS], runs=[OTHER_COMPLETED, refused]))[0]
    assert (row.cause, earlier in row.explanation) == ("unfit-input", False)


def test_a_failure_that_led_to_parking_says_that_the_analysis_is_parked() -> None:
    aside = job("analyze", "set_aside", error_name="model-crashed", error="it crashed")
    facts = replace(FACTS, analyses=[LUNGS], runs=[run("failed")], jobs=[aside])
    assert only(facts).command == "anode retry --study 1.2.3 --config x"
    row = only(replace(facts, parked={"lungs": Parked("it crashed", NOW)}))
    assert (row.state, row.cause) == ("stopped", "model-crashed")
    assert row.explanation.startswith("It crashed. 1 try so far. The analysis lungs is parked since")
    assert row.command == "anode retry --analysis lungs --config x"


def test_what_an_analysis_left_that_was_taken_out_is_still_told() -> None:
    runs = [COMPLETED, run("no-match", series_instance_uid="", analysis="other")]
    facts = replace(FACTS, runs=runs, jobs=DELIVERED)
    row, delivered = explain(facts)
    assert (row.about, row.state, row.results) == ("analysis lungs", "done", ["1.1", "1.2", "1.3"])
    assert row.explanation == (
        "Completed: 3 result objects. The analysis is not in the configuration any more."
    )
    assert (delivered.about, state_of(facts)) == ("results to PACS", "returned")
    row = only(replace(FACTS, runs=[COMPLETED, run("failed", revision=2)]))
    assert (row.state, row.results) == ("done", ["1.1", "1.2", "1.3"])
    lost = run("incomplete", reason="1 of 3 results is missing", result_sop_instance_uids=["1.1"])
    row = only(replace(FACTS, runs=[lost]))
    assert (row.state, row.results) == ("done", ["1.1"])
    assert row.explanation.startswith("1 of 3 results is missing. The analysis is not in")


def test_jobs_of_an_analysis_that_was_taken_out_say_how_they_are_let_go() -> None:
    failed = {"error_name": "model-crashed", "error": "it crashed"}
    jobs = [job("analyze", "set_aside", number, **failed) for number in (1, 2)]
    facts = replace(FACTS, runs=[run("failed")], jobs=[*jobs, job("select", "done", 3)])
    row = only(facts)
    assert (row.about, row.state, row.cause) == ("analysis lungs", "stopped", "not-configured")
    assert row.explanation == (
        "2 jobs of it are set aside, the last: It crashed. The analysis is not in the configuration any "
        "more: a node that runs without it lets such jobs go once they are asked for."
    )
    assert (row.since, row.command) == (NOW - 10, "anode retry --analysis lungs --config x")
    assert state_of(facts) == "stopped"


def test_a_result_that_did_not_match_is_told_as_it_is() -> None:
    reason = "the series does not match: mr.kind is 't2w', the analysis wants 't1w'"
    row = only(
        replace(FACTS, analyses=[LUNGS], runs=[run("no-match", series_instance_uid="", reason=reason)])
    )
    assert (row.state, row.cause, row.command) == ("idle", "no-match", "")
    assert row.explanation == "The series does not match: mr.kind is 't2w', the analysis wants 't1w'."


def test_what_needs_a_person_comes_first_and_what_is_idle_last() -> None:
    third = AnalysisConfig("third", "lungs")
    runs = [
        run("no-match", series_instance_uid="", reason="the series does not match"),
        run("completed", analysis="other"),
        run("unfit-input", analysis="third"),
    ]
    refused = {"error_name": "peer-refused", "error": "A900"}
    jobs = [job("deliver", "set_aside", **refused), job("settle", "ready", 2, **refused)]
    rows = explain(replace(FACTS, analyses=[LUNGS, OTHER, third], runs=runs, jobs=jobs))
    assert [(row.about, row.state) for row in rows] == [
        ("results to PACS", "stopped"),
        ("analysis third", "refused"),
        ("analysis other", "done"),
        ("storage", "retrying"),
        ("analysis lungs", "idle"),
    ]
