"""Row of the codecs: how many images a second they decode with nothing else to do, whoever asks for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial

from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import UID, HTJ2KLossless, JPEGLSLossless

from benchmarks.figures import Case
from benchmarks.images import Images
from benchmarks.options import Options
from benchmarks.rounds import alternate
from node.transcode import htj2k
from node.transcode.codestreams import jpeg_ls_samples
from node.transcode.side_by_side import CORES, side_by_side

_DECODERS: tuple[tuple[str, UID, Callable[[bytes], object]], ...] = (
    ("JPEG-LS", JPEGLSLossless, jpeg_ls_samples),
    ("HTJ2K", HTJ2KLossless, htj2k.samples),
)


def codec(options: Options, images: Images) -> Generator[Case, None, None]:
    """Rates of the decoders that the node uses, on one core and on all."""
    frames = {name: _frames(images, options.instances, syntax) for name, syntax, _ in _DECODERS}
    for threads in sorted({1, CORES}):
        contestants: dict[str, Callable[[], float]] = {
            name: partial(_rate, decode, frames[name], threads) for name, _, decode in _DECODERS
        }
        title = "1 thread" if threads == 1 else f"{threads} threads"
        figures = alternate(contestants, options.rounds, before=os.sync, what=f"codec, {title}")
        yield Case("codec", title, "images/s", figures)


def _frames(images: Images, instances: int, transfer_syntax_uid: UID) -> list[bytes]:
    (series,) = images.ct(1, instances, transfer_syntax_uid)
    return [next(generate_frames(dcmread(path).PixelData, number_of_frames=1)) for path in series.paths]


def _rate(decode: Callable[[bytes], object], frames: Sequence[bytes], threads: int) -> float:
    """Frames per second."""
    begun = time.perf_counter()
    count = sum(1 for _ in side_by_side(decode, frames, threads=threads))
    return count / (time.perf_counter() - begun)
