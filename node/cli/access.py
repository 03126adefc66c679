"""Who else on the machine can read or change what is the node's, and what its own user could not read."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from node.config.settings import Config
from node.errors import WrongUsage

Finding = tuple[str, Literal["warning", "problem"], str]
"""What was looked at, how bad it is, and what to do."""

_READ_BY_OTHERS = stat.S_IROTH | stat.S_IXOTH


def findings(config: Config) -> Iterator[Finding]:
    """Yield, for ``anode check``, what others can read or change; nothing where all is as it should be."""
    data_dir = config.node.data_dir
    mode = _mode(data_dir)
    if mode & stat.S_IWOTH:
        yield "data_dir", "problem", f"{data_dir} can be changed by every user: chmod o-rwx {data_dir}"
    elif mode & _READ_BY_OTHERS:
        yield (
            "data_dir",
            "warning",
            f"{data_dir} can be looked into by every user of this machine: chmod o-rwx {data_dir}",
        )
    tls = config.node.tls
    if tls is not None and tls.key is not None and _mode(tls.key) & (stat.S_IROTH | stat.S_IWOTH):
        yield "tls key", "problem", f"the key {tls.key} can be read by every user: chmod o-rwx {tls.key}"
    if config.source is not None and _mode(config.source) & stat.S_IWOTH:
        yield (
            "configuration",
            "problem",
            f"{config.source} can be changed by every user: chmod o-w {config.source}",
        )


def refuse_root(data_dir: Path) -> None:
    """Raise WrongUsage where root would write in the directory of another user, who could not read it."""
    if os.geteuid() != 0 or not data_dir.exists() or data_dir.stat().st_uid == 0:
        return
    owner = data_dir.stat().st_uid
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    raise WrongUsage(
        f"{data_dir} belongs to {name}, who could not read what root writes there",
        action=f"run the command as that user: sudo -u {name} anode ...",
    )


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:  # it is not there, or that is somebody else's finding
        return 0
