"""Is this very data set held already?"""

from __future__ import annotations

import sqlite3


def holds(
    connection: sqlite3.Connection,
    sop_instance_uid: str,
    *,
    transfer_syntax_uid: str,
    data_set_sha256: str,
) -> bool:
    """Whether what is held under a UID was received just so, and was not found to be damaged."""
    row = connection.execute(
        "SELECT 1 FROM instance WHERE SOPInstanceUID = ? AND data_set_sha256 = ?"
        " AND received_transfer_syntax_uid = ? AND problem = ''",
        (sop_instance_uid, data_set_sha256, transfer_syntax_uid),
    ).fetchone()
    return row is not None
