"""What a run of the benchmarks is told: how much, how often, where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The sizes of one run; the defaults are those of ``docs/performance.md``.

    Attributes
    ----------
    folder : Path
        Where every receiver keeps its data: one disk for all of them.
    images_folder : Path
        Where the senders' files lie; in memory, if there is room, so that reading them costs nobody.
    rounds : int
        How often each contestant runs; they take turns.
    instances : int
        CT images of each association.
    small_instances : int
        Objects of 2 KB of each association.
    associations : tuple of int
        Numbers of associations at the same time.
    pixel_source : Path or None
        A folder with one real CT series of 16-bit images, instead of the phantom.
    mr_source : Path or None
        The same for MR, where pixels are wanted as a scanner made them.
    index_rows : int
        Instances in the full index.
    index_cache : Path or None
        Folder in which a filled index is kept for the next run.
    large_object_bytes : int
        Length of the pixels of the one large object.
    idle_associations : int
        How many are held idle.
    latency_seconds : float
        How long C-STORE requests are timed in each turn.
    backlog_instances : int
        Images that wait to be settled when timing under load begins.
    """

    folder: Path
    images_folder: Path
    rounds: int = 5
    instances: int = 250
    small_instances: int = 1000
    associations: tuple[int, ...] = (1, 2, 4, 8)
    pixel_source: Path | None = None
    mr_source: Path | None = None
    index_rows: int = 1_000_000
    index_cache: Path | None = None
    large_object_bytes: int = 2 * 1024**3
    idle_associations: int = 500
    latency_seconds: float = 10.0
    backlog_instances: int = 2000
