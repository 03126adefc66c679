"""What a disk may show after the power was cut: a node's own writes, recorded and played again.

``recorded`` is a command that runs a node under strace: every write, truncation, name and flush of the
node and of its children is noted with its bytes, SQLite's too, and everything that is sent. ``Recording``
reads that. At any moment of it, ``Recording.cut`` tells what was durable by then and what was not: only
what a flush of the same file covered, which began after the write had ended and ended before the cut,
and only names whose folder was flushed. Of the rest a disk may keep anything: ``Cut.make`` draws it.

Not recorded is what is written through a map: the ``-shm`` file of SQLite, which it makes again, and the
arrays of running analyses, which are removed by the next start.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CALLS = (
    "openat,open,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,"
    "ftruncate,truncate,fallocate,pwrite64,pwritev,pwritev2,write,writev,fsync,fdatasync,sync,syncfs,"
    "sendto,sendmsg,copy_file_range"
)
_SECTOR, _PAGE = 512, 4096
_FOLDER = -1  # in place of the number of a file

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()")
_RESULT = re.compile(r" = (-?\d+)")
_UNFINISHED = " <unfinished ...>"
_OPEN_FILE = re.compile(r"^(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})+)>(\(deleted\))?")


def recorded(log: Path) -> list[str]:
    """Return the command in front of a node's own that records it to ``log``."""
    return [
        "strace", "-f", "-yy", "-xx", "-qq", "-s", str(1 << 26), "--signal=none", "--seccomp-bpf",
        "-e", f"trace={_CALLS}", "-o", str(log),
    ]  # fmt: skip


def is_recordable() -> bool:
    """Whether strace is here, and the system lets it trace."""
    return (
        shutil.which("strace") is not None
        and subprocess.run([*recorded(Path(os.devnull)), "true"], check=False).returncode == 0
    )


@dataclass(frozen=True)
class _Content:
    """A change of what is in a file: bytes from ``offset`` on, or with None a new length."""

    begin: int
    end: int
    file: int
    offset: int
    data: bytes | None
    may_shrink: bool = True


@dataclass(frozen=True)
class _Names:
    """Names that came or went in one step; ``folder`` has to be flushed for it to last."""

    begin: int
    end: int
    folder: str
    names: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class _Flush:
    begin: int
    end: int
    of: int | str


@dataclass(frozen=True)
class Sent:
    """Bytes that a process began to send at ``begin``."""

    begin: int
    data: bytes


@dataclass
class Cut:
    """What was written before a moment, and whether it was durable."""

    contents: list[tuple[_Content, bool]]
    names: list[tuple[_Names, bool]]

    @property
    def undecided(self) -> int:
        """How many steps a disk may or may not show."""
        return sum(not is_durable for _, is_durable in (*self.contents, *self.names))

    def make(self, root: Path, keeps: str, chance: random.Random) -> None:
        """Write below ``root`` what a disk may show.

        ``keeps`` says what is kept of all that was not durable: 'nothing', 'everything', or 'some': of
        each write all, nothing, some sectors or pages, or only the length; of the names of each folder
        those up to a certain one.
        """
        files: dict[int, bytearray] = defaultdict(bytearray)
        for content, is_durable in self.contents:
            kept = "all" if is_durable or keeps == "everything" else "nothing"
            if keeps == "some" and not is_durable:
                kept = chance.choice(("all", "nothing", "sectors", "pages", "length"))
            _apply(files[content.file], content, kept, chance)
        root.mkdir(parents=True, exist_ok=True)
        names: dict[str, int] = {}
        for step in self._kept_names(keeps, chance):
            for name, file in step.names:
                if file is None:
                    names.pop(name, None)
                else:
                    names[name] = file
        for name, file in sorted(names.items()):
            path = root / name
            if file == _FOLDER:
                path.mkdir(parents=True, exist_ok=True)
            elif path.parent.is_dir():  # else its folder was lost, and with it the name
                path.write_bytes(files[file])

    def _kept_names(self, keeps: str, chance: random.Random) -> Iterator[_Names]:
        undecided: dict[str, int] = defaultdict(int)
        for step, is_durable in self.names:
            undecided[step.folder] += not is_durable
        left = {
            folder: {"nothing": 0, "everything": count}.get(keeps, chance.randint(0, count))
            for folder, count in undecided.items()
        }
        for step, is_durable in self.names:
            if not is_durable:
                left[step.folder] -= 1
            if is_durable or left[step.folder] >= 0:
                yield step


def _apply(file: bytearray, content: _Content, kept: str, chance: random.Random) -> None:
    if kept == "nothing":
        return
    if content.data is None:
        if content.offset < len(file) and content.may_shrink:
            del file[content.offset :]
        file.extend(bytes(max(0, content.offset - len(file))))
        return
    end = content.offset + len(content.data)
    file.extend(bytes(max(0, end - len(file))))
    if kept == "all":
        file[content.offset : end] = content.data
    elif kept in ("sectors", "pages"):
        size = _SECTOR if kept == "sectors" else _PAGE
        for start in range(content.offset // size * size, end, size):
            if chance.random() < 0.5:
                first, last = max(start, content.offset), min(start + size, end)
                file[first:last] = content.data[first - content.offset : last - content.offset]


@dataclass
class Recording:
    """All that a node did below the folder ``root``, and all that it sent.

    The positions of a recording are those of the lines of its log: what ended at a position was caused
    by nothing that began after it.
    """

    root: Path
    contents: list[_Content] = field(default_factory=list)
    names: list[_Names] = field(default_factory=list)
    flushes: list[_Flush] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    length: int = 0

    @classmethod
    def read(cls, log: Path, root: Path) -> Recording:
        """Read the log of ``recorded``."""
        recording = cls(root)
        _Reader(recording).read(log)
        return recording

    def cut(self, position: int) -> Cut:
        """Say what had been written when the power went, at ``position``."""
        flushed: dict[int | str, int] = {}
        for flush in self.flushes:
            if flush.end < position:
                flushed[flush.of] = max(flushed.get(flush.of, -1), flush.begin)
        return Cut(
            [(one, one.end < flushed.get(one.file, -1)) for one in self.contents if one.begin < position],
            [(one, one.end < flushed.get(one.folder, -1)) for one in self.names if one.begin < position],
        )

    def sent_before(self, position: int) -> Sequence[Sent]:
        """What had begun to go out by then."""
        return self.sent[: bisect_left(self.sent, position, key=lambda sent: sent.begin)]


class _Reader:
    """Reads the lines of strace; knows which file has which name meanwhile."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._root = str(recording.root) + "/"
        self._names: dict[str, int] = {"": _FOLDER}
        self._lengths: dict[int, int] = defaultdict(int)
        self._next_file = 0

    def read(self, log: Path) -> None:
        begun: dict[str, tuple[int, str]] = {}
        position = 0
        with log.open(encoding="latin-1") as lines:
            for position, line in enumerate(lines):
                found = _LINE.match(line)
                if found is None:
                    continue
                process, resumed, name = found.groups()
                rest, begin = line[found.end() :].rstrip(), position
                if resumed:
                    if process not in begun:
                        continue
                    begin, first = begun.pop(process)
                    name, rest = resumed, first + rest
                elif rest.endswith(_UNFINISHED):
                    begun[process] = position, rest.removesuffix(_UNFINISHED)
                    continue
                self._call(name, rest, begin, position)
        self._recording.length = position + 1
        self._recording.sent.sort(key=lambda sent: sent.begin)

    def _call(self, name: str, rest: str, begin: int, end: int) -> None:
        if name in ("sendto", "sendmsg") or (name in ("write", "writev") and "<TCP" in rest[:20]):
            self._recording.sent.append(Sent(begin, _data(rest)))
            return
        close = rest.rfind(")", 0, rest.rfind(" = "))
        result = _RESULT.search(rest, close)
        if result is None or int(result[1]) < 0:
            return
        arguments = rest[:close]
        if name in ("sync", "syncfs", "copy_file_range", "link", "linkat", "symlink", "truncate", "creat"):
            assert self._root not in "".join(_paths(arguments)), f"{name} is not understood"
            return
        handler = {
            "openat": self._open, "open": self._open,
            "mkdir": self._mkdir, "mkdirat": self._mkdir,
            "rename": self._rename, "renameat": self._rename, "renameat2": self._rename,
            "unlink": self._unlink, "unlinkat": self._unlink, "rmdir": self._unlink,
            "fsync": self._flush, "fdatasync": self._flush,
        }.get(name)  # fmt: skip
        if handler is not None:
            handler(arguments, begin, end)
            return
        file = self._open_file(arguments)
        if file is not None and file >= 0:
            self._write(name, file, arguments, int(result[1]), begin, end)

    # --- names ---------------------------------------------------------------

    def _below(self, path: str) -> str | None:
        """Path below the root; None when it is elsewhere or not to be kept."""
        if not path.startswith(self._root):
            return None
        below = path.removeprefix(self._root)
        return None if below.endswith("-shm") or below.startswith("data/work") else below

    def _set(self, begin: int, end: int, *names: tuple[str, int | None]) -> None:
        for name, file in names:
            if file is None:
                self._names.pop(name, None)
            else:
                self._names[name] = file
        folder = names[0][0].rpartition("/")[0]
        self._recording.names.append(_Names(begin, end, folder, names))

    def _open(self, arguments: str, begin: int, end: int) -> None:
        [*_, path] = _paths(arguments)
        below = self._below(path)
        if below is None or (below in self._names and "O_TRUNC" not in arguments):
            return
        if below not in self._names:
            if "O_CREAT" in arguments:
                self._set(begin, end, (below, self._next_file))
                self._next_file += 1
            return
        file = self._names[below]
        self._lengths[file] = 0
        self._recording.contents.append(_Content(begin, end, file, 0, None))

    def _mkdir(self, arguments: str, begin: int, end: int) -> None:
        [*_, path] = _paths(arguments)
        if (below := self._below(path)) is not None:
            self._set(begin, end, (below, _FOLDER))

    def _rename(self, arguments: str, begin: int, end: int) -> None:
        source, target = (self._below(path) for path in _paths(arguments)[-2:])
        if source is None and target is None:
            return
        assert source is not None
        assert target is not None
        self._set(begin, end, (target, self._names[source]), (source, None))

    def _unlink(self, arguments: str, begin: int, end: int) -> None:
        [*_, path] = _paths(arguments)
        if (below := self._below(path)) is not None:
            self._set(begin, end, (below, None))

    # --- files ---------------------------------------------------------------

    def _open_file(self, arguments: str) -> int | None:
        found = _OPEN_FILE.match(arguments)
        below = self._below(_decoded(found[2]).decode()) if found and not found[3] else None
        # None too for what was there before the node, such as its configuration
        return None if below is None else self._names.get(below)

    def _flush(self, arguments: str, begin: int, end: int) -> None:
        found = _OPEN_FILE.match(arguments)
        if found is None or found[3]:
            return
        path = _decoded(found[2]).decode()
        below = "" if f"{path}/" == self._root else self._below(path)
        if below is not None:
            file = self._names[below]
            of = below if file == _FOLDER else file
            self._recording.flushes.append(_Flush(begin, end, of))

    def _write(self, name: str, file: int, arguments: str, result: int, begin: int, end: int) -> None:
        # Texts are in hexadecimal, so that no quotation mark or comma is part of one.
        numbers = [
            int(number) for number in re.findall(r"(?<=, )\d+(?=,|$)", "".join(arguments.split('"')[::2]))
        ]
        data: bytes | None = None
        if name == "ftruncate":
            offset = numbers[-1]
            length = offset
        elif name == "fallocate":
            assert arguments.split(", ")[1] == "0", "a hole is not understood"
            offset = numbers[-2] + numbers[-1]
            length = max(offset, self._lengths[file])
        else:
            data = _data(arguments)[:result]
            assert len(data) == result, f"{name} is cut short in the log"
            if name in ("write", "writev"):
                offset = self._lengths[file]  # such files are written from their beginning on
            else:
                offset = numbers[-2] if name == "pwritev2" else numbers[-1]
            length = max(self._lengths[file], offset + result)
        self._lengths[file] = length
        self._recording.contents.append(
            _Content(begin, end, file, offset, data, may_shrink=name == "ftruncate")
        )


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _data(text: str) -> bytes:
    return b"".join(map(_decoded, text.split('"')[1::2]))


def _paths(arguments: str) -> list[str]:
    """The paths that a call is given, whole where they are relative to an open folder."""
    found = []
    for match in re.finditer(
        r'(?:(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})+)>, )?"((?:\\x[0-9a-f]{2})*)"', arguments
    ):
        path = _decoded(match[2]).decode("utf-8", "surrogateescape")
        if not path.startswith("/") and match[1]:
            path = f"{_decoded(match[1]).decode()}/{path}"
        found.append(path)
    return found
