"""Which study an operator means: its UID, the end or beginning of it, or its Accession Number."""

from __future__ import annotations

from node import alarms
from node.cli import output
from node.cli.opening import Records
from node.errors import UnknownStudy

_SHOWN = 5


def study_named(opened: Records, text: str) -> str:
    """Return the Study Instance UID of the one study that ``text`` names.

    Raises
    ------
    UnknownStudy
        When no study or more than one is meant.
    """
    wanted = text.strip().lstrip("…")
    if not wanted:
        raise UnknownStudy("no study is named", action="'anode studies' lists them")
    with opened.database.read() as connection:
        found = opened.index.studies_named(connection, wanted, limit=_SHOWN + 1)
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
        raise UnknownStudy(f"'{text}' names more than one study: {some}", action="give more of the UID")
    raise UnknownStudy(f"there is no study '{text}' here", action=_why_not(opened))


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
