"""Why a study is where it is: from what the records hold to rows that a person can act on.

Nothing is read or changed here: ``explain`` is a function of `Facts`.
"""

from __future__ import annotations

from collections.abc import Iterator

from node.alarms import DISK_FULL
from node.analysis_runs import COMPLETED
from node.explanation.analyses import WAITING_FOR_QUIET, of_analysis, of_taken_out
from node.explanation.deliveries import of_deliveries, of_idle_route
from node.explanation.facts import Facts, Row
from node.explanation.stored import of_storage
from node.explanation.words import sentence

NODE_STOPPED = "node-stopped"
CONFIG_CHANGED = "config-changed"

# rows that say nothing on how far the study has come
_NOT_ITS_WAY = ("node", "quarantine")
# what needs a person is read first, what is idle last
_ORDER = {"stopped": 0, "refused": 1, "idle": 3}
_BETWEEN = 2


def explain(facts: Facts) -> list[Row]:
    """Return the rows of a study: the node itself, its analyses, its deliveries, its storage.

    What is stopped comes first, then what is refused; what is idle comes last.
    """
    rows = [*_node(facts)]
    for analysis in facts.analyses:
        rows += of_analysis(facts, analysis)
    rows += of_taken_out(facts)
    rows += of_deliveries(facts)
    for number, route in enumerate(facts.routes, 1):
        rows += of_idle_route(facts, number, route)
    rows += of_storage(facts)
    return sorted(rows, key=lambda row: _ORDER.get(row.state, _BETWEEN))


def state_of(facts: Facts) -> str:
    """Say in one word how far a study has come.

    ``receiving``, ``complete`` (analyses are due or running), ``analysed`` (results are on their
    way), ``returned``, ``stored`` (nothing more was asked for), ``refused`` (by every analysis that saw a
    series), or ``stopped`` (a person has to look).
    """
    rows = [row for row in explain(facts) if row.about not in _NOT_ITS_WAY and row.state != "idle"]
    unfinished = [row for row in rows if row.state not in ("done", "refused")]
    if any(row.state == "stopped" for row in unfinished):
        return "stopped"
    if any(row.cause == WAITING_FOR_QUIET for row in unfinished):
        return "receiving"
    if any(row.about.startswith("analysis ") for row in unfinished):
        return "complete"
    has_results = any(run["state"] == COMPLETED for run in facts.runs)
    if any(" to " in row.about for row in unfinished):
        return "analysed" if has_results else "complete"
    if not has_results:
        return "refused" if any(row.state == "refused" for row in rows) else "stored"
    return "returned" if any(row.about.startswith("results to ") for row in rows) else "analysed"


def _node(facts: Facts) -> Iterator[Row]:
    for alarm in facts.alarms:
        if alarm.name == DISK_FULL:
            yield Row(
                "node",
                "stopped",
                DISK_FULL,
                f"{sentence(alarm.message)} Instances are refused with status A700 until space is free; "
                "receiving then resumes by itself, and the sender has to send them again.",
                since=alarm.since,
                command=f"anode status{facts.command_options}",
            )
    unfinished = facts.waiting or any(job["state"] in ("ready", "leased") for job in facts.jobs)
    if not facts.node_is_running and unfinished:
        yield Row(
            "node",
            "stopped",
            NODE_STOPPED,
            "The node is not running; what waits is done when it runs.",
            command=f"anode run{facts.command_options}",
        )
    if facts.stale_configuration:
        yield Row("node", "stopped", CONFIG_CHANGED, f"{facts.stale_configuration}.")
