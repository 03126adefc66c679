"""A C-STORE sender of our own: for transfer syntaxes that DCMTK does not know, and to time each request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from benchmarks.images import Series
from benchmarks.peers import Receiver
from benchmarks.processes import HOST, BenchmarkFailure
from node.wire import scu
from node.wire.requestor import RequestedAssociation

CALLING_AE_TITLE = "BENCHMARKS"
_TIMEOUT_SECONDS = 300.0
_MAX_PDU_BYTES = 131072
_SUCCESS = 0
_BEFORE_GROUP_LENGTH_VALUE = 128 + 4 + 8  # preamble, prefix, tag and VR and length (PS3.10 section 7.1)


def associate(receiver: Receiver, sop_class_uid: str, transfer_syntax_uid: str) -> RequestedAssociation:
    """Open an association with one presentation context."""
    return scu.connect(
        HOST,
        receiver.port,
        calling_ae_title=CALLING_AE_TITLE,
        called_ae_title=receiver.ae_title,
        contexts=[scu.ProposedContext(sop_class_uid, (transfer_syntax_uid,))],
        timeout_seconds=_TIMEOUT_SECONDS,
        max_pdu_bytes=_MAX_PDU_BYTES,
    )


def store(
    association: RequestedAssociation, sop_class_uid: str, sop_instance_uid: str, data_set: bytes | BinaryIO
) -> float:
    """Send one C-STORE-RQ; return the seconds from its first byte to its response.

    BenchmarkFailure when the response is anything but Success.
    """
    context = association.context_for(sop_class_uid)
    if context is None:
        raise BenchmarkFailure(f"no presentation context was accepted for {sop_class_uid}")
    start = time.perf_counter()
    answer = association.send_store(
        context, sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid, data_set=data_set
    )
    seconds = time.perf_counter() - start
    if answer.status != _SUCCESS:
        raise BenchmarkFailure(f"C-STORE was answered with {answer.status:04X} {answer.comment}")
    return seconds


def send(receiver: Receiver, series: Series) -> None:
    """Send a series in one association, with new identifiers."""
    for _ in timed(receiver, series):
        pass


def timed(receiver: Receiver, series: Series) -> Iterator[float]:
    """Send a series in one association, with new identifiers; yield the seconds of each C-STORE."""
    series.renew()
    with associate(receiver, series.sop_class_uid, series.transfer_syntax_uid) as association:
        for path, sop_instance_uid in zip(series.paths, series.sop_instance_uids, strict=True):
            data_set = data_set_of(path)
            yield store(association, series.sop_class_uid, sop_instance_uid, data_set)


def data_set_of(path: Path) -> bytes:
    """The data set of a Part 10 file, without its File Meta Information."""
    content = path.read_bytes()
    at = _BEFORE_GROUP_LENGTH_VALUE
    return content[at + 4 + int.from_bytes(content[at : at + 4], "little") :]
