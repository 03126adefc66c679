"""Rows of memory: one object that is larger than it, and associations that only wait."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks import headers, own_sender, receiving
from benchmarks.anode import Anode
from benchmarks.figures import Case, Target
from benchmarks.images import Images
from benchmarks.options import Options
from benchmarks.processes import BenchmarkFailure
from benchmarks.rounds import alternate, come_to_rest
from node.wire.sop_classes import VERIFICATION

_MB = 1024 * 1024
_FRAME_BYTES = 512 * 512 * 2
_PIXEL_DATA = bytes.fromhex("e07f1000") + b"OW\0\0"
_MOST_GROWTH_MB = 32.0
_MOST_ROUNDS = 3
_SAMPLES_EVERY_SECONDS = 0.01
_IDLE_TIMEOUT_SECONDS = 600
_LIMIT_BESIDE_IDLE = 8


def memory(options: Options, images: Images) -> Generator[Case, None, None]:
    """How much the node's memory grows while it receives one large object."""
    frames = max(1, options.large_object_bytes // _FRAME_BYTES)
    frame = images.ct(1, options.instances)[0].paths[0].read_bytes()[-_FRAME_BYTES:]
    measured = alternate(
        {"anode": partial(_receive_large, options, images, frames, frame)},
        min(options.rounds, _MOST_ROUNDS),
        before=partial(come_to_rest, []),
        what="memory",
    )["anode"]
    megabytes = frames * _FRAME_BYTES / _MB
    yield Case(
        "memory",
        f"growth while one object of {megabytes:,.0f} MB is received",
        "MB",
        {
            "peak of all resident memory": [one["resident"] for one in measured],
            "peak of private memory": [one["private"] for one in measured],
        },
        (Target("peak of all resident memory", "", _MOST_GROWTH_MB, is_most=True),),
        (
            f"{max(one['before'] for one in measured):.0f} MB resident before;"
            f" received at {min(megabytes / one['seconds'] for one in measured):,.0f} MB/s or faster",
        ),
    )


def idle(options: Options, images: Images) -> Generator[Case, None, None]:
    """How many associations can wait, and what each costs."""
    wanted = options.idle_associations
    configuration = (
        f"[limits]\nassociations = {wanted + _LIMIT_BESIDE_IDLE}\n"
        f"associations_per_peer = {wanted + _LIMIT_BESIDE_IDLE}\n"
        f"network_timeout_seconds = {_IDLE_TIMEOUT_SECONDS}\n"
    )
    held, kilobytes, milliseconds = [], [], []
    with Anode(options.folder / "idle", configuration) as anode:
        receiving.warm_up([anode], options, images)
        come_to_rest([anode])
        _echo_once(anode)
        before = _proportional_kb(anode.process_id)
        with ExitStack() as open_associations:
            associations = [
                open_associations.enter_context(
                    own_sender.associate(anode, VERIFICATION, ExplicitVRLittleEndian)
                )
                for _ in range(wanted)
            ]
            kilobytes.append((_proportional_kb(anode.process_id) - before) / wanted)
            milliseconds += [_echo_once(anode) for _ in range(options.rounds)]
            held.append(float(sum(association.echo().status == 0 for association in associations)))
    yield Case("idle", "associations held", "associations", {"anode": held}, (Target("anode", "", wanted),))
    yield Case("idle", "memory of each idle association", "KiB", {"anode": kilobytes})
    yield Case("idle", "C-ECHO on a further association, with its negotiation", "ms", {"anode": milliseconds})


def _receive_large(options: Options, images: Images, frames: int, frame: bytes) -> dict[str, float]:
    """Send one object of ``frames`` frames; return by how many MB memory grew until Success, and how long."""
    with Anode(options.folder / "memory") as anode:
        receiving.warm_up([anode], options, images)
        come_to_rest([anode])
        held = anode.received()
        data_set, sop_class_uid, sop_instance_uid = _large_object(frames, frame)
        with own_sender.associate(anode, sop_class_uid, ExplicitVRLittleEndian) as association:
            before = _status_kb(anode.process_id)
            _forget_peak(anode.process_id)
            with _sampled(lambda: _status_kb(anode.process_id)["RssAnon"]) as private:
                seconds = own_sender.store(association, sop_class_uid, sop_instance_uid, data_set)
                peak = _status_kb(anode.process_id)["VmHWM"]
        if anode.received() != held + 1:
            raise BenchmarkFailure(f"{anode.name} holds {anode.received()} instances")
    return {
        "resident": (peak - before["VmRSS"]) / 1024,
        "before": before["VmRSS"] / 1024,
        "private": (max(private) - before["RssAnon"]) / 1024,
        "seconds": seconds,
    }


def _large_object(frames: int, frame: bytes) -> tuple[BinaryIO, str, str]:
    """An encoded data set that is made while it is read, its SOP Class UID and SOP Instance UID."""
    header = headers.multi_frame(frames)
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, header)
    pixel_bytes = frames * len(frame)
    start = encoded.getvalue() + _PIXEL_DATA + pixel_bytes.to_bytes(4, "little")
    stream = io.BufferedReader(_Repeated(start, frame, pixel_bytes), len(frame))
    return cast(BinaryIO, stream), header.SOPClassUID, header.SOPInstanceUID


class _Repeated(io.RawIOBase):
    """``start``, then ``part`` over and over, ``length`` bytes of it."""

    def __init__(self, start: bytes, part: bytes, length: int) -> None:
        self._start, self._part = start, part
        self._position, self._end = 0, len(start) + length

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as one piece reaches; return its length, 0 at the end."""
        if self._position < len(self._start):
            piece = memoryview(self._start)[self._position :]
        else:
            offset = (self._position - len(self._start)) % len(self._part)
            piece = memoryview(self._part)[offset:]
        count = min(len(buffer), len(piece), self._end - self._position)
        buffer[:count] = piece[:count]
        self._position += count
        return count


@contextmanager
def _sampled(read: Callable[[], int]) -> Iterator[list[int]]:
    """Take a sample again and again while the block runs."""
    samples = [read()]
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(_SAMPLES_EVERY_SECONDS):
            samples.append(read())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


def _status_kb(process_id: int) -> dict[str, int]:
    """The kilobytes in ``/proc/PID/status``."""
    text = Path(f"/proc/{process_id}/status").read_text()
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _forget_peak(process_id: int) -> None:
    """Have ``VmHWM`` begin anew (proc(5), ``clear_refs``)."""
    Path(f"/proc/{process_id}/clear_refs").write_text("5")


def _proportional_kb(process_id: int) -> int:
    """The process's memory, shared pages by their share (proc(5), ``smaps_rollup``)."""
    text = Path(f"/proc/{process_id}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise BenchmarkFailure("this kernel does not tell the proportional memory of a process")
    return int(found[1])


def _echo_once(anode: Anode) -> float:
    """Milliseconds of an association with one C-ECHO."""
    start = time.perf_counter()
    with own_sender.associate(anode, VERIFICATION, ExplicitVRLittleEndian) as association:
        if association.echo().status != 0:
            raise BenchmarkFailure("C-ECHO was refused")
    return 1000 * (time.perf_counter() - start)
