"""What keeps a model from all that is not its own: namespaces of Linux, and no privileges within them.

A process that went through ``leave`` and ``shut_in`` has no network, sees no other process, and finds the
file system read only, but for the folders that it was given. What is hidden is not there at all. It lost
every capability, so that it cannot undo any of this. Only the standard library's plainest modules are used:
this runs before the model's own are loaded.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from node import subordinate
from node.processes import unowned_memory
from node.processes.system_calls import (
    AT_RECURSIVE,
    ATTR_NODEV,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    Unconfined,
    call,
    library,
    mount,
    opened,
    prctl,
    set_attributes,
    write,
)

#: Of the memory file system at ``/dev/shm``; what lies there is in nobody's resident memory.
SHARED_MEMORY_MB = 256
_TRY_SECONDS, _MOST_TRIES = 30, 3

_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET = 0x20000000, 0x40000000
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 24, 36, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, _CAPABILITY_VERSION_3, _MOST_CAPABILITIES = 47, 4, 0x20080522, 64

#: Devices that computing needs. Disks are among those that it does not.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_ACCELERATORS = ("nvidia", "dri", "kfd", "accel", "dxg")
_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}

Extent = Literal["whole", "none"]
"""How far a process is confined: from everything, or not. What is between leaves the archive in reach."""


@dataclass(frozen=True)
class Cell:
    """What is left of the file system; absolute paths without links.

    Attributes
    ----------
    hidden
        folders in whose place an empty one is found, and files that cannot be opened
    readable
        folders that stay readable although they lie in a hidden one
    writable
        folders that may be written; the first becomes the working folder
    """

    hidden: tuple[str, ...]
    readable: tuple[str, ...]
    writable: tuple[str, ...]


def extent(*, allow_network: bool) -> Extent | None:
    """How far a model can be confined here; None when it is to run only where it can be."""
    if is_confinable():
        return "whole"
    return "none" if allow_network else None


def is_confinable() -> bool:
    """Whether this system permits all of it to this user."""
    return not why_unconfinable()


@cache
def why_unconfinable() -> str:
    """Say why this system permits not all of it to this user; empty where it does.

    That is tried in a process of its own, once, or again where it failed: a machine that is short of
    something for a moment is not one that permits nothing.
    """
    for _ in range(_MOST_TRIES):
        why = _tried()
        if not why:
            return ""
    return why


# --- in the process that is confined -----------------------------------------


def leave(extent_of: Extent, *, allow_network: bool) -> None:
    """Leave the namespaces of the node; the process numbers change with the next child.

    Raises
    ------
    Unconfined
        the system permits it not
    """
    if extent_of == "none":
        return
    flags = _CLONE_NEWPID | _CLONE_NEWIPC | (0 if allow_network else _CLONE_NEWNET)
    user, group = os.getuid(), os.getgid()
    try:
        call("leaving the namespaces", "unshare", flags)
    except Unconfined as error:
        if error.errno != errno.EPERM:
            raise
        # Who is not root may do so in a user namespace, where it stays who it was.
        call("making a user namespace", "unshare", flags | _CLONE_NEWUSER)
        for file, text in (
            ("setgroups", "deny"),
            ("gid_map", f"{group} {group} 1"),
            ("uid_map", f"{user} {user} 1"),
        ):
            write(f"/proc/self/{file}", text)
    unowned_memory.limit()


def leave_terminal() -> None:
    """Give up the terminal of the node, into which a model could type."""
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


def shut_in(cell: Cell) -> None:
    """Leave of the file system what ``cell`` says; for the first process in its namespaces.

    Raises
    ------
    Unconfined
        the system permits it not; what is left is unusable
    """
    call("making a mount namespace", "unshare", _CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    kept = [(path, opened(path)) for path in (*cell.readable, *cell.writable)]
    devices = opened("/dev")
    # Some containers cover parts of it, and then permit no other. The processes that stay visible in it
    # belong to another namespace: none can be looked into or signalled.
    with suppress(Unconfined):
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mounted = _make_devices(devices)
    for path in cell.hidden:
        _hide(path, devices)
    for path, descriptor in kept:
        os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, flags=MS_BIND | MS_REC)
    set_attributes("/", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0, AT_RECURSIVE)
    for path in mounted:
        set_attributes(path, 0, ATTR_NODEV, AT_RECURSIVE)
    for path in ("/dev/shm", *cell.writable):
        set_attributes(path, 0, ATTR_RDONLY, 0)
    # What was open or the working folder lies in what is hidden now, and would lead there.
    os.chdir(cell.writable[0])
    for descriptor in (devices, *(one for _, one in kept)):
        os.close(descriptor)


def give_up_privileges() -> None:
    """Lose every capability, for good: no program that is started gets one either."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(_MOST_CAPABILITIES):
        # Refused to who has none, who needs no more; and beyond the last one there is.
        library().prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    library().prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    none = ctypes.create_string_buffer(struct.pack("=6I", *[0] * 6))
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    call("giving up capabilities", "capset", header, none)


def keep_from_others(is_kept: bool) -> None:
    """Whether other processes of the user may look into this one, and at what it has open."""
    if sys.platform.startswith("linux"):
        prctl(_PR_SET_DUMPABLE, int(not is_kept))


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    if sys.platform.startswith("linux"):
        prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _make_devices(old: int) -> list[str]:
    """Put those devices alone into ``/dev`` that a model may need; return where they are mounted."""
    names = [
        name
        for name in sorted(os.listdir(f"/proc/self/fd/{old}"))
        if name in _DEVICES or name.startswith(_ACCELERATORS)
    ]
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=1m,mode=755")
    mounted = []
    for name in names:
        source, target = f"/proc/self/fd/{old}/{name}", f"/dev/{name}"
        _make_like(source, target)
        mount(source, target, flags=MS_BIND | MS_REC)
        mounted.append(target)
    for name, end in _LINKS.items():
        os.symlink(f"/proc/self/fd{end}", f"/dev/{name}")
    os.mkdir("/dev/shm")
    options = f"size={SHARED_MEMORY_MB}m,nr_inodes=16k,mode=1777"
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    return mounted


def _hide(path: str, devices: int) -> None:
    if os.path.isdir(path):
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=1m,mode=755")
    elif os.path.exists(path):
        mount(f"/proc/self/fd/{devices}/null", path, flags=MS_BIND)


def _make_like(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o600))


# --- whether it works --------------------------------------------------------


def _tried() -> str:
    if not sys.platform.startswith("linux"):
        return "there are no namespaces but on Linux"
    command = [sys.executable, "-P", "-m", __name__]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        # It ends by itself when that takes too long: to wait here for so long would take a clock.
        done = subprocess.run(
            command,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        return str(error)
    if not done.returncode:
        return ""
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return said[-1] if said else f"exit status {done.returncode}"


def main() -> None:
    """Try it: exit status 0 when it works, else 1 and the reason."""
    try:
        _try()
    except Unconfined as error:
        raise SystemExit(str(error)) from None


def _try() -> None:
    signal.alarm(_TRY_SECONDS)
    leave("whole", allow_network=False)
    child = os.fork()
    signal.alarm(_TRY_SECONDS)
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        raise SystemExit(status)
    # No signal ends the first process of a namespace but this one, which comes from without.
    subordinate.end_with_parent(signal.SIGKILL)
    shut_in(Cell(("/run",), (), ("/dev/shm",)))
    give_up_privileges()


if __name__ == "__main__":
    main()
