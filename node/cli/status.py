"""``anode status``: does the node run, what does it hold, what waits for a person?"""

from __future__ import annotations

import argparse
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from node import refusals
from node.cli import command, output
from node.cli.echo import problem_of_running_node
from node.cli.opening import (
    Records,
    configuration,
    is_running,
    records,
    running_port,
    stale_configuration,
    standing_alarms,
    started,
)
from node.config.config_values import listed
from node.config.settings import Config
from node.jobs import listing

if TYPE_CHECKING:
    from node.cli.command import Commands

_MOST_REFUSALS = 10
_REFUSED_NOUNS = {
    "connection": "connection",
    "association": "association",
    "context": "presentation context",
    "operation": "request",
}


def register(commands: Commands) -> None:
    """Add the command."""
    command.add(
        commands,
        "status",
        _run,
        summary="show whether the node runs, what it holds and what waits",
        description="Exit status 1 when the node is not running or does not answer.",
        examples="anode status\nanode status --json",
    )


def _run(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    with records(config) as opened:
        status = _status(opened)
    if arguments.json:
        output.as_json(status)
    else:
        _print(status)
    return 0 if status["running"] and not status["problem"] else 1


def _status(opened: Records) -> dict[str, Any]:
    config = opened.config
    running = is_running(config)
    problem = ""
    port = running_port(config) if running else config.node.port
    if port and running:
        problem = problem_of_running_node(config)
    with opened.database.read() as connection:
        counts = opened.index.counts(connection)
        jobs = listing.counts(connection)
    data_dir = config.node.data_dir
    refused, others_refused = refusals.read(data_dir)
    free_bytes = shutil.disk_usage(data_dir).free
    start = started(config) if running else None
    received, stored = counts["received_bytes"], counts["stored_bytes"]
    return {
        "running": running,
        "problem": problem,
        "configuration_changed": stale_configuration(config),
        "ae_title": config.node.ae_title,
        "host": config.node.host,
        "port": port,
        "data_dir": str(data_dir),
        "repaired_at_start": start.repairs.counts() if start else {},
        "patients": counts["patients"],
        "studies": counts["studies"],
        "series": counts["series"],
        "instances": counts["instances"],
        "instances_not_settled": counts["unsettled"],
        "instances_damaged": counts["damaged"],
        "quarantined": counts["quarantined"],
        "received_bytes": received,
        "stored_bytes": stored,
        "compression_ratio": round(received / stored, 3) if stored else None,
        "last_received": output.iso(counts["last_received_at"]),
        "last_received_at": counts["last_received_at"],
        "jobs": {
            # what was being done when the node was killed is done anew
            "waiting": sum(jobs["ready"].values()) + (0 if running else sum(jobs["leased"].values())),
            "running": sum(jobs["leased"].values()) if running else 0,
            "set_aside": sum(jobs["set_aside"].values()),
            "set_aside_by_kind": jobs["set_aside"],
        },
        "free_bytes": free_bytes,
        "reserve_bytes": config.storage.free_space_reserve_bytes,
        "refused": [asdict(one) for one in refused],
        "others_refused": others_refused,
        "tls_warnings": _tls_warnings(config),
        "alarms": [asdict(alarm) for alarm in standing_alarms(config)],
    }


def _tls_warnings(config: Config) -> list[str]:
    if config.node.tls is None and not any(peer.tls for peer in config.peers):
        return []
    from node.wire import validity

    return validity.warnings(config, time.time())


def _print(status: dict[str, Any]) -> None:
    address = f"{status['ae_title']} on {status['host']}:{status['port']}"
    if not status["running"]:
        state = "not running; start it with 'anode run'"
    elif status["problem"]:
        state = f"running, but does not answer: {status['problem']}"
    elif status["port"]:
        state = "running, answers"
    else:
        state = "running, on a port that it chose itself"
    jobs = status["jobs"]
    aside = output.count(jobs["set_aside"], "job")
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(jobs["set_aside_by_kind"].items()))
    ratio = status["compression_ratio"]
    quarantined = status["quarantined"]
    held = f"{output.size(status['received_bytes'])} received, {output.size(status['stored_bytes'])} stored"
    last = status["last_received_at"]
    pairs: list[tuple[str, object]] = [
        ("node", f"{address}: {state}"),
        ("data", status["data_dir"]),
        ("patients", status["patients"]),
        ("studies", status["studies"]),
        ("series", status["series"]),
        ("instances", status["instances"]),
        ("not yet settled", status["instances_not_settled"]),
        ("size", held + (f" (ratio {ratio:.2f})" if ratio else "")),
        ("last received", output.moment(last) if last else "never"),
        ("jobs", f"{jobs['running']} running, {jobs['waiting']} waiting"),
        ("set aside", f"{aside} ({kinds}); 'anode jobs --state set-aside' lists them" if kinds else "none"),
        ("quarantine", f"{quarantined}; 'anode studies --quarantine' lists them" if quarantined else "empty"),
        (
            "free disk",
            f"{output.size(status['free_bytes'])}, {output.size(status['reserve_bytes'])} reserved",
        ),
    ]
    if status["configuration_changed"]:
        pairs.insert(1, ("CONFIG", status["configuration_changed"]))
    if status["repaired_at_start"]:
        found = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in status["repaired_at_start"].items())
        pairs.insert(2, ("repaired", f"at the last start, after a run that was cut short: {found}"))
    if status["instances_damaged"]:
        damaged = output.count(status["instances_damaged"], "instance")
        pairs.append(("DAMAGED", f"{damaged}; 'anode verify --damaged' lists them"))
    if not status["running"]:  # else an alarm says so
        pairs += [("TLS", warning) for warning in status["tls_warnings"]]
    pairs += [
        ("ALARM", f"{alarm['name']} since {output.moment(alarm['since'])}: {alarm['message']}")
        for alarm in status["alarms"]
    ]
    pairs += [("refused", refused) for refused in _refused(status)]
    output.facts(pairs)


def _refused(status: dict[str, Any]) -> Iterator[str]:
    """Word what the node has refused since it was started, the latest first."""
    refused = status["refused"]
    for one in refused[:_MOST_REFUSALS]:
        title = one["calling_ae_title"]
        who = f"AE {title} at " if title else ""
        what = output.count(one["times"], _REFUSED_NOUNS[one["kind"]])
        detail = f" ({one['detail']})" if one["detail"] else ""
        action = f"; to allow it, {one['action']}" if one["action"] else ""
        last = output.moment(one["last_at"])
        yield f"{what} from {who}{one['peer_address']}, last {last}: {one['reason']}{detail}{action}"
    more = Counter(status["others_refused"])
    for one in refused[_MOST_REFUSALS:]:
        more[one["kind"]] += one["times"]
    if more:
        counted = [output.count(times, _REFUSED_NOUNS[kind]) for kind, times in sorted(more.items())]
        yield f"{listed(counted)} more; --json and the log have what is known of them"
