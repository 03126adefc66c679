"""Which instance an operator means: its SOP Instance UID, or the beginning of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.cli.opening import Records
from node.errors import UnknownInstance, WrongUsage

if TYPE_CHECKING:
    from node.index.index import StoredInstance

_SHOWN = 5


def instance_named(opened: Records, text: str) -> StoredInstance:
    """Return the one instance that ``text`` names; an end counts behind "…", as tables shorten a UID.

    Raises
    ------
    WrongUsage
        When it is empty.
    UnknownInstance
        When no instance or more than one is meant.
    """
    wanted = text.strip()
    is_end = wanted.startswith("…")
    wanted = wanted.lstrip("…")
    if not wanted:
        raise WrongUsage("no instance is named", action="'anode studies' lists the studies")
    with opened.database.read() as connection:
        found = opened.index.instances_named(connection, wanted, is_end=is_end, limit=_SHOWN + 1)
        if len(found) == 1:
            stored = opened.index.get(connection, found[0])
            if stored is not None:
                return stored
    if found:
        some = ", ".join(found[:_SHOWN]) + (" …" if len(found) > _SHOWN else "")
        raise UnknownInstance(f"'{text}' names more than one instance: {some}", action="give more of the UID")
    raise UnknownInstance(
        f"there is no instance '{text}' here",
        action="'anode studies' lists what is here",
    )
