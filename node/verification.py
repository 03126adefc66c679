"""Is what is stored still what was acknowledged? The one question of commitment and ``anode verify``."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from node.errors import IntegrityFailure, NodeError, TransientFailure
from node.index.index import StoredInstance
from node.storage.storage import Storage
from node.transcode.outgoing import private_information
from node.transcode.restoring import chunks, differing_frames, restore

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

_MOST_FRAMES = 20


def verify(services: Services, stored: StoredInstance) -> str:
    """Read an instance back, restore the data set as it was received, and digest it.

    Parameters
    ----------
    services : Services
        Its storage is read.
    stored : StoredInstance
        The row of the instance, as it is now.

    Returns
    -------
    str
        Empty when the received data set is given back byte for byte and the stored one is
        unchanged; else what is wrong.
    """
    try:
        return problem_of(services.storage, stored)
    except TransientFailure as error:
        return f"cannot be read for now: {error}"


def note_damage(services: Services, stored: StoredInstance, problem: str) -> None:
    """Note, as ``anode verify`` does, that an instance could not be given when it was wanted.

    It is looked at once more. Nothing is noted of one that is good, that was moved meanwhile, or of
    which nobody can tell for now.
    """
    try:
        found = problem_of(services.storage, stored)
    except TransientFailure:
        return
    if not found:
        return
    logger.error("an instance that was wanted is damaged", extra={"problem": problem})

    def mark(connection: sqlite3.Connection) -> None:
        if services.index.get(connection, stored.sop_instance_uid) == stored:
            services.index.mark_verified(
                connection, stored.sop_instance_uid, services.clock.timestamp(), found
            )

    services.database.write(mark)


def look_again(services: Services, stored: StoredInstance, problem: str) -> StoredInstance | None:
    """Return an instance that could not be read as it is now, for it may have been settled since.

    None when it is where it was, or nowhere: then the ``problem`` is noted, as ``note_damage`` does.
    """
    with services.database.read() as connection:
        now = services.index.get(connection, stored.sop_instance_uid)
    if now is None or now.location == stored.location:
        note_damage(services, stored, problem)
        return None
    return now


def problem_of(storage: Storage, stored: StoredInstance) -> str:
    """As ``verify``, for who has the storage alone; raises TransientFailure when nobody can tell for now."""
    try:
        private = private_information(storage, stored)
        with storage.open(stored.location) as file:
            try:
                length = sum(map(len, restore(file, private)))
                if private["stored"].get("codec"):
                    # The stored header has no part in restoring.
                    file.seek(0)
                    for _ in chunks(file, private["stored"]):
                        pass
            except IntegrityFailure as error:
                return f"damaged: {error}{_where(file, private)}"
    except IntegrityFailure as error:
        return f"damaged: {error}"
    except TransientFailure:
        raise
    except NodeError as error:
        return f"cannot be read: {error}"
    if length != stored.data_set_bytes:
        return f"damaged: {length} bytes instead of {stored.data_set_bytes}"
    return ""


def _where(file: BinaryIO, private: Mapping[str, Any]) -> str:
    """Which frames are concerned, where their digests tell."""
    try:
        if "frame_sha256" not in private:
            return ""
        frames = differing_frames(file, private)
    except (KeyError, TypeError, ValueError, AttributeError, NodeError):
        return ""  # the proof itself is damaged
    if not frames:
        return "; every frame gives the pixels that were received"
    some = ", ".join(map(str, frames[:_MOST_FRAMES])) + (" …" if len(frames) > _MOST_FRAMES else "")
    of = len(private["frame_sha256"])
    return f"; of {of} frames, {len(frames)} give other pixels or none: {some}"
