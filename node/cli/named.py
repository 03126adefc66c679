"""Which study or instance an operator means: by its UID, the beginning of it, or its Accession Number."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from node import alarms
from node.cli import output
from node.cli.opening import Records
from node.errors import UnknownInstance, UnknownStudy, WrongUsage

if TYPE_CHECKING:
    from node.index.index import StoredInstance

_SHOWN = 5
_ALL = 1_000_000
_BE_EXACT = "give more of the UID"


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
    wanted, is_end = _wanted(text, "study")
    with opened.database.read() as connection:
        meant = (
            uid
            for uid in opened.index.studies_named(connection, wanted, limit=_ALL)
            if (uid.endswith(wanted) if is_end else _is_meant(opened, connection, uid, wanted))
        )
        found = list(islice(meant, _SHOWN + 1))
    if len(found) > 1:
        raise UnknownStudy(_several(text, "study", found), action=_BE_EXACT)
    if not found:
        raise UnknownStudy(f"there is no study '{text}' here", action=_why_not(opened))
    return found[0]


def instance_named(opened: Records, text: str) -> StoredInstance:
    """Return the one instance whose SOP Instance UID ``text`` is or begins; an end as of ``study_named``.

    Raises
    ------
    WrongUsage
        When it is empty.
    UnknownInstance
        When no instance or more than one is meant.
    """
    wanted, is_end = _wanted(text, "instance")
    with opened.database.read() as connection:
        found = opened.index.instances_named(connection, wanted, is_end=is_end, limit=_SHOWN + 1)
        stored = opened.index.get(connection, found[0]) if found else None
    if len(found) > 1:
        raise UnknownInstance(_several(text, "instance", found), action=_BE_EXACT)
    if stored is None:
        raise UnknownInstance(
            f"there is no instance '{text}' here", action="'anode studies' lists what is here"
        )
    return stored


def _wanted(text: str, what: str) -> tuple[str, bool]:
    """What is looked for, and whether it is an end."""
    wanted = text.strip()
    is_end = wanted.startswith("…")
    wanted = wanted.lstrip("…")
    if not wanted:
        raise WrongUsage(f"no {what} is named", action="'anode studies' lists what is here")
    return wanted, is_end


def _several(text: str, what: str, found: Sequence[str]) -> str:
    """What is wrong where more than one is meant."""
    some = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
    return f"'{text}' names more than one {what}: {some}"


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
    return (
        "a study goes by its UID or Accession Number, which 'anode studies --names' lists beside the Patient "
        "ID; the sender's log says what became of one that is not there"
    )
