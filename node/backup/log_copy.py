"""Copies the receive log: the records that rows name, and those that are newer than all rows.

A segment is copied up to the end of its last record. What is still being received behind it was not
acknowledged to anybody. The records of the copy are proven by their digests.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.backup import copying
from node.backup.copying import Unreadable
from node.backup.manifest import Entry
from node.errors import IntegrityFailure, StorageFailure
from node.storage.held_log import HeldLog
from node.storage.location import Location
from node.storage.record import Head, is_intact

logger = logging.getLogger(__name__)

#: Name of the log's folder, in a data directory and in a backup.
LOG = "log"


@dataclass(frozen=True)
class Damage:
    """Where something is not as it was acknowledged, and what is wrong with it."""

    where: str
    problem: str


@dataclass(frozen=True)
class LogCopy:
    """What came of it: the files, how many records they hold, and which of these are damaged."""

    entries: tuple[Entry, ...]
    records: int
    damages: tuple[Damage, ...]


def copy(
    log: HeldLog, data_dir: Path, folder: Path, generation: str, known: Mapping[Location, str]
) -> LogCopy:
    """Copy the segments that ``log`` holds to ``folder / generation``.

    Parameters
    ----------
    log : HeldLog
        Holds all segments that rows name, as far as they are there.
    data_dir, folder : Path
        From where, and the folder of the backup.
    generation : str
        Path below ``folder`` of what belongs to this backup alone.
    known : mapping
        The records that rows name, and their SOP Instance UIDs.

    Raises
    ------
    StorageFailure, OutOfSpace
        The copy cannot be written.
    """
    of_segment: dict[str, list[Location]] = defaultdict(list)
    for location in known:
        of_segment[location.path].append(location)
    entries: list[Entry] = []
    damages: list[Damage] = []

    def report(segment: str, problem: str) -> None:
        damages.append(Damage(f"segment {segment} of the receive log", problem))

    for name in sorted(log.names):
        # A record that no row names counts where it is whole: else nobody was told Success for it.
        records = [
            (location, head)
            for location, head in log.records(name, report)
            if location in known or not _problem(log, location, head)
        ]
        ends = [log.end_of(location) for location in (*of_segment[name], *(found for found, _ in records))]
        if not ends:
            continue
        try:
            entries.append(_copy(data_dir, folder, generation, f"{LOG}/{name}.seg", max(ends)))
            entries.extend(
                _copy(data_dir, folder, generation, f"{LOG}/{path.name}", None)
                for location, head in records
                for path in log.continuations(location, head)
            )
        except (IntegrityFailure, Unreadable) as error:
            logger.error("a segment could not be copied", extra={"segment": name, "reason": str(error)})
    good = _good_records(folder / generation / LOG)
    return LogCopy(
        tuple(entries),
        len(good),
        (
            *damages,
            *(
                Damage(
                    sop_instance_uid,
                    f"its record in segment {location.path} of the receive log is damaged or gone",
                )
                for location, sop_instance_uid in known.items()
                if location not in good
            ),
        ),
    )


def _good_records(copy: Path) -> set[Location]:
    """The records of a copied log that are what their heads promise."""
    with HeldLog(copy) as log:
        log.hold()
        return {
            location
            for name in log.names
            for location, head in log.records(name, lambda _segment, _problem: None)
            if not _problem(log, location, head)
        }


def _copy(data_dir: Path, folder: Path, generation: str, path: str, count: int | None) -> Entry:
    copied = copying.copy(data_dir / path, folder, f"{generation}/{path}", count=count)
    return Entry(path, f"{generation}/{path}", copied.count, copied.sha256)


def _problem(log: HeldLog, location: Location, head: Head) -> str:
    try:
        with log.open(location) as data_set:
            return "" if is_intact(data_set, head) else "a record is not what was acknowledged"
    except (IntegrityFailure, StorageFailure) as error:
        return f"a record cannot be read: {error}"
