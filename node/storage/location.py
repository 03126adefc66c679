"""Where an instance's bytes are; opaque to everyone outside ``node/storage``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Location:
    """``log:SEGMENT:OFFSET:LENGTH`` or ``archive:RELATIVE-PATH`` (``str`` and ``parse`` are inverse).

    ``offset`` and ``length`` are those of the data set within its segment, in bytes.
    """

    kind: Literal["log", "archive"]
    path: str
    offset: int = 0
    length: int = 0

    def __str__(self) -> str:
        if self.kind == "log":
            return f"log:{self.path}:{self.offset}:{self.length}"
        return f"archive:{self.path}"

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read what ``str`` wrote; raise ValueError for anything else."""
        kind, _, rest = text.partition(":")
        if kind == "log":
            path, offset, length = rest.split(":")
            return cls("log", path, int(offset), int(length))
        if kind == "archive" and rest:
            return cls("archive", rest)
        raise ValueError(f"not a location: {text!r}")
