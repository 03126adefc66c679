"""Flushes what a long reception has behind it, while the rest still comes."""

from __future__ import annotations

import threading

from node.errors import NodeError, StorageFailure
from node.storage import disk
from node.storage.segment import Segment


class WriteBehind:
    """One flush at a time, in a thread of its own.

    So the last flush, for which the sender waits, is short; and a sender that is faster than the
    disk is held back, rather than that the system's memory fills with unwritten bytes.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: NodeError | None = None

    def flush(self, segment: Segment, *, then_close: bool = False) -> None:
        """Begin to flush a segment when the flush before is done; raises as ``wait`` does."""
        self.wait()
        thread = threading.Thread(
            target=self._flush, args=(segment, then_close), name="write-behind", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads: the sender waits for it
            self._flush(segment, then_close)
        else:
            self._thread = thread

    def wait(self) -> None:
        """Return when what was given is durable.

        Raises OutOfSpace or StorageFailure when it is not; its segment is broken then.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _flush(self, segment: Segment, then_close: bool) -> None:
        error: NodeError | None = StorageFailure("the flush came to no end")
        try:
            disk.sync_data(segment.file)
            error = None
        except NodeError as failure:
            error = failure
        finally:
            if error is not None:
                segment.is_broken = True
                self._error = error
            if then_close:
                segment.close()
