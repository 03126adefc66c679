"""``python -m tests.support.killed_node run …``: a node in a hurry, killed where its folder says.

In a hurry: what a node does some time later (sweep, use segments again, ask for a confirmation) it does
soon, and the database's log is short, so that a short life comes to all of it.
"""

from __future__ import annotations

import os
import sys

from node import __main__ as command_line
from node.index import database
from node.jobs import schedule
from node.storage.storage import Storage
from node.tasks import confirm, deliver
from tests.support import kill_points


def hurry() -> None:
    """Shorten what a node waits for; none of it is a promise."""
    schedule.COMPLETION_SECONDS = 0.2
    schedule.SWEEP_SECONDS = 0.3
    defaults = Storage.__init__.__kwdefaults__
    assert defaults is not None
    defaults["reclaim_grace_seconds"] = 0.1
    database._CHECKPOINT_PAGES = 40
    deliver.CONFIRM_AFTER_SECONDS = 0.1
    confirm.REPORT_SECONDS = 2.0
    confirm.ASK_AGAIN_SECONDS = 0.5


if __name__ == "__main__":
    hurry()
    if kill_points.FOLDER in os.environ:
        kill_points.install()
    sys.exit(command_line.main())
