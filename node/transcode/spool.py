"""Where data sets wait while they are made: in memory, or in a temporary file when they are large."""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

IN_MEMORY_BYTES = 32 << 20


def spool() -> BinaryIO:
    """Open a temporary file that can be written and read; it is gone when it is closed."""
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES))
