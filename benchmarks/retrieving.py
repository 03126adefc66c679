"""Rows of C-GET and C-MOVE: how many instances a second are sent back, beside Orthanc."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat

from pydicom.uid import UID, ExplicitVRLittleEndian, HTJ2KLossless, JPEGLSLossless

from benchmarks import own_sender, sending
from benchmarks.anode import Anode
from benchmarks.figures import Case, Target
from benchmarks.images import Images
from benchmarks.options import Options
from benchmarks.peers import IgnoringStorescp, Orthanc, PickyIgnoringStorescp, Receiver
from benchmarks.processes import HOST, BenchmarkFailure, environment, executable
from benchmarks.rounds import alternate, come_to_rest, tell

UNIT = "instances/s"
HTJ2K = "anode, HTJ2K stored"
_SINK = "SINK"
_LARGE_PDU_BYTES = 131072
_TAKES_AT_MOST_SECONDS = 600.0
_OF_ORTHANC = 1.2
_OF_ORTHANC_DECODED = 0.4
_OF_ORTHANC_HTJ2K = 0.9
_KEEP = '[transcode]\nto = "keep"\n'
_ORTHANC_DECODES = (
    "getscu offers uncompressed syntaxes beside JPEG-LS, and Orthanc takes those and decodes: other work,"
    " so no target. C-MOVE compares the same work."
)
_COMPLETED = re.compile(r"[Cc]ompleted [Ss]ub-?operations\s*: (\d+)")


@dataclass(frozen=True)
class Way:
    """One way of asking for a study.

    ``is_first`` is for studies that nobody asked for before, another one in each round; the others ask
    for the one that was asked for last.
    """

    title: str
    is_first: bool = False
    pdu_bytes: int | None = None
    is_move: bool = False


WAYS = (
    Way("C-GET, the first time", is_first=True),
    Way("C-GET, again"),
    Way("C-GET, again, PDUs of 128 KiB", pdu_bytes=_LARGE_PDU_BYTES),
    Way("C-MOVE, again", is_move=True),
)


@dataclass(frozen=True)
class Holder:
    """A server and the studies that it holds, one for each round."""

    receiver: Receiver
    studies: list[str]


def get(options: Options, images: Images) -> Generator[Case, None, None]:
    """Retrieval in the transfer syntax in which both servers store: uncompressed, and JPEG-LS."""
    folder = options.folder / "get"
    with ExitStack() as running:
        sink = running.enter_context(IgnoringStorescp(folder / "sink"))
        anode = running.enter_context(Anode(folder / "anode", _KEEP + _destination(sink)))
        orthanc = running.enter_context(Orthanc(folder / "orthanc", {_SINK: sink.port}))
        receivers: list[Receiver] = [anode, orthanc]
        uncompressed = [_load(receiver, options, images, ExplicitVRLittleEndian) for receiver in receivers]
        jpeg_ls = [_load(receiver, options, images, JPEGLSLossless) for receiver in receivers]
        _start_anew(receivers)
        targets = (Target("anode", "Orthanc", _OF_ORTHANC),)
        yield from _cases("get", "uncompressed stored", options, uncompressed, (), targets)
        for case in _cases("get", "JPEG-LS stored", options, jpeg_ls, ("+xt",), targets):
            yield _without_promise(case) if "C-GET" in case.title else case


def decode(options: Options, images: Images) -> Generator[Case, None, None]:
    """Retrieval uncompressed: we store JPEG-LS, or HTJ2K, and Orthanc stores what it is asked for."""
    folder = options.folder / "decode"
    with ExitStack() as running:
        sink = running.enter_context(PickyIgnoringStorescp(folder / "sink"))
        anode = running.enter_context(Anode(folder / "anode", _destination(sink)))
        htj2k = running.enter_context(Anode(folder / "htj2k", _destination(sink), HTJ2K))
        orthanc = running.enter_context(Orthanc(folder / "orthanc", {_SINK: sink.port}))
        holders = [
            _load(anode, options, images, ExplicitVRLittleEndian),
            _load(htj2k, options, images, HTJ2KLossless),
            _load(orthanc, options, images, ExplicitVRLittleEndian),
        ]
        _start_anew([anode, htj2k, orthanc])
        targets = (
            Target("anode", "Orthanc", _OF_ORTHANC_DECODED),
            Target(HTJ2K, "Orthanc", _OF_ORTHANC_HTJ2K),
        )
        yield from _cases("decode", "uncompressed asked", options, holders, (), targets)


def _without_promise(case: Case) -> Case:
    """A case that compares different work: the ratio is shown, and promises nothing."""
    targets = tuple(replace(target, limit=None) for target in case.targets)
    return replace(case, targets=targets, notes=(_ORTHANC_DECODES,))


def _destination(sink: Receiver) -> str:
    return f'[[peers]]\nae_title = "{_SINK}"\nhost = "{HOST}"\nport = {sink.port}\nallow = []\n'


def _load(receiver: Receiver, options: Options, images: Images, transfer_syntax_uid: UID) -> Holder:
    """Send a study for each round."""
    (series,) = images.ct(1, options.instances, transfer_syntax_uid)
    tell(f"{receiver.name} is sent {options.rounds} studies in {transfer_syntax_uid.name}")
    studies = []
    for _ in range(options.rounds):
        if transfer_syntax_uid == HTJ2KLossless:
            own_sender.send(receiver, series)
        else:
            sending.storescu(receiver, [series])
        studies.append(series.study_instance_uid)
    return Holder(receiver, studies)


def _start_anew(receivers: Sequence[Receiver]) -> None:
    """Have everything settled, and start the servers anew, so that they remember nothing."""
    come_to_rest(receivers)
    for receiver in receivers:
        receiver.stop()
        receiver.start()


def _cases(
    row: str,
    what: str,
    options: Options,
    holders: Sequence[Holder],
    asked: tuple[str, ...],
    targets: tuple[Target, ...],
) -> Iterator[Case]:
    for way in WAYS:
        title = f"{what}, {way.title}"
        contestants = {
            holder.receiver.name: _Turns(holder, way, options.instances, asked) for holder in holders
        }
        figures = alternate(
            contestants,
            options.rounds,
            before=partial(come_to_rest, [holder.receiver for holder in holders]),
            what=f"{row}, {title}",
        )
        yield Case(row, title, UNIT, figures, targets)


class _Turns:
    """Retrieves a study of a server at each call, as ``way`` says which."""

    def __init__(self, holder: Holder, way: Way, instances: int, asked: Sequence[str]) -> None:
        self._receiver = holder.receiver
        self._studies = iter(holder.studies) if way.is_first else repeat(holder.studies[-1])
        self._way = way
        self._instances = instances
        self._asked = asked

    def __call__(self) -> float:
        return self._instances / retrieve(
            self._receiver, next(self._studies), self._instances, self._way, self._asked
        )


def retrieve(receiver: Receiver, study: str, instances: int, way: Way, asked: Sequence[str]) -> float:
    """Ask for a study with ``getscu --ignore`` or ``movescu``; return the seconds that it took.

    BenchmarkFailure when not every instance came.
    """
    if way.is_move:
        command = [executable("movescu", "dcmtk"), "-aem", _SINK]
    else:
        command = [executable("getscu", "dcmtk"), "--ignore", *asked]
    if way.pdu_bytes is not None:
        command += ["-pdu", str(way.pdu_bytes)]
    command += [
        "-d" if way.is_move else "-v",
        "-S",
        "-aec",
        receiver.ae_title,
        "-k",
        "0008,0052=STUDY",
        "-k",
        f"0020,000D={study}",
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, HOST, str(receiver.port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_TAKES_AT_MOST_SECONDS,
        check=False,
        env=environment(no_delay=True),
    )
    seconds = time.perf_counter() - start
    completed = max(map(int, _COMPLETED.findall(done.stdout)), default=0)
    if done.returncode or completed != instances:
        raise BenchmarkFailure(
            f"{receiver.name} sent {completed} of {instances} instances, status {done.returncode}:\n"
            f"{done.stdout[-1000:]}\n{receiver.last_words}"
        )
    return seconds
