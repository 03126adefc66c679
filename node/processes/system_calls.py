"""Calls of Linux that shut a process in, with their failures named."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
AT_RECURSIVE = 0x8000
_SYS_MOUNT_SETATTR, _AT_FDCWD = 442, -100
#: What ``mountinfo`` calls them.
_ATTRIBUTES = {"ro": ATTR_RDONLY, "nosuid": ATTR_NOSUID, "nodev": ATTR_NODEV, "noexec": _ATTR_NOEXEC}


class Unconfined(OSError):
    """The system permits it not; the text says what."""


@cache
def library() -> Any:
    """The C library."""
    return ctypes.CDLL(None, use_errno=True)


def call(doing: str, name: str, *arguments: Any) -> None:
    """Call the function ``name`` of the C library; the other functions raise Unconfined as this one does.

    Raises
    ------
    Unconfined
        it fails while ``doing`` something
    """
    try:
        function = getattr(library(), name)
    except AttributeError:
        raise Unconfined(errno.ENOSYS, f"{doing}: this system has no {name}") from None
    if function(*arguments):
        number = ctypes.get_errno()
        raise Unconfined(number, f"{doing}: {os.strerror(number)}")


def prctl(option: int, value: int) -> None:
    """Set what this process may (prctl(2))."""
    call("setting what a process may", "prctl", option, value, 0, 0, 0)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount something (mount(2))."""
    texts = [one.encode() or None for one in (source, target, kind)]
    call(f"mounting {target}", "mount", *texts, ctypes.c_ulong(flags), options.encode() or None)


def set_attributes(path: str, add: int, remove: int, flags: int) -> None:
    """Set attributes of the mount at ``path``, with ``AT_RECURSIVE`` of all below it, too."""
    try:
        _set_attributes_at_once(path, add, remove, flags)
    except Unconfined as error:
        # Before Linux 5.12 there is no such call, and some containers refuse those that they do not know.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        mounts = _mounts_below(path)
        for one in mounts if flags & AT_RECURSIVE else mounts[:1]:
            # The bits of both calls are the same ones.
            attributes = (one.attributes | add) & ~remove
            mount("", one.path, flags=MS_REMOUNT | MS_BIND | attributes)


def _set_attributes_at_once(path: str, add: int, remove: int, flags: int) -> None:
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", add, remove, 0, 0))
    call(
        f"setting what may be done at {path}",
        "syscall",
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(path.encode()),
        ctypes.c_uint(flags),
        attributes,
        ctypes.c_size_t(32),
    )


@dataclass(frozen=True)
class _MountPoint:
    """``attributes`` are those of ``mount_setattr``, among them those that may not be taken away."""

    path: str
    attributes: int


def _mounts_below(top: str) -> list[_MountPoint]:
    """Return the mount at ``top`` and those below it, as far as paths lead to them."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            number, _, _, _, written, options = line.split()[:6]
            path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), written)
            if path != top and not path.startswith(top.rstrip("/") + "/"):
                continue
            if _mount_at(path) == number:
                set_already = (bit for name, bit in _ATTRIBUTES.items() if name in options.split(","))
                found.append(_MountPoint(path, sum(set_already)))
    if not found or min(found, key=lambda one: len(one.path)).path != top:
        raise Unconfined(errno.EINVAL, f"setting what may be done at {top}: nothing is mounted there")
    return sorted(found, key=lambda one: len(one.path))


def _mount_at(path: str) -> str:
    """The number of the mount to which a path leads; none where it leads nowhere for this user."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}") as file:
            facts = dict(line.split(":", 1) for line in file)
        return facts["mnt_id"].strip()
    finally:
        os.close(descriptor)


def opened(path: str) -> int:
    """Open a path without reading it; it stays what it is when something is mounted over it."""
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise Unconfined(error.errno, f"opening {path}: {error.strerror}") from error


def write(path: str, text: str) -> None:
    """Write to a file of the kernel."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise Unconfined(error.errno, f"writing {path}: {error.strerror}") from error
