"""Which study an operator means: its UID, the beginning of it, or its Accession Number."""

from __future__ import annotations

import sqlite3
from itertools import islice

from node import alarms
from node.cli import output
from node.cli.opening import Records
from node.errors import UnknownStudy, WrongUsage

_SHOWN = 5
_ALL = 1_000_000


def study_named(opened: Records, text: str) -> str:
    """Return the Study Instance UID of the one study that ``text`` names.

    A whole UID names its study whatever else it begins. An end counts only behind "…", which is how
    tables shorten a UID: nobody means an end by chance then.

    Raises
    ------
    WrongUsage
        When it is empty.
    UnknownStudy
        When no study or more than one is meant.
    """
    wanted = text.strip()
    is_end = wanted.startswith("…")
    wanted = wanted.lstrip("…")
    if not wanted:
        raise WrongUsage("no study is named", action="'anode studies' lists them")
    with opened.database.read() as connection:
        meant = (
            uid
            for uid in opened.index.studies_named(connection, wanted, limit=_ALL)
            if (uid.endswith(wanted) if is_end else _is_meant(opened, connection, uid, wanted))
        )
        found = list(islice(meant, _SHOWN + 1))
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
        raise UnknownStudy(f"'{text}' names more than one study: {some}", action="give more of the UID")
    raise UnknownStudy(f"there is no study '{text}' here", action=_why_not(opened))


def _is_meant(opened: Records, connection: sqlite3.Connection, uid: str, wanted: str) -> bool:
    if uid.startswith(wanted):
        return True
    studies = opened.index.studies(connection, limit=1, study_instance_uid=uid)
    return any(study["AccessionNumber"] == wanted for study in studies)


def _why_not(opened: Records) -> str:
    """Say why a study may be missing, where that is known."""
    for alarm in alarms.standing(opened.config.node.data_dir):
        if alarm.name == alarms.DISK_FULL:
            since, until = output.moment(alarm.since), output.moment(alarm.last_seen)
            return (
                f"the disk was full from {since} until {until} at least: instances sent then were "
                "refused with status A700, and have to be sent again"
            )
    return "'anode studies' lists those that are; the sender's log says what became of this one"
