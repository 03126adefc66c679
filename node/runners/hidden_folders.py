"""Folders of the machine that no model sees."""

from __future__ import annotations

from pathlib import Path

#: Where programs of the machine listen on sockets that are files, and everybody leaves things.
HIDDEN_FOLDERS = (Path("/run"), Path("/tmp"), Path("/var/tmp"))
