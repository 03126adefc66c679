"""Settles instances: reads the record of each, encodes, proves, and writes its archive file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from node.errors import NodeError
from node.index.index import Provenance
from node.settling.order import Order, Settled
from node.storage import archive
from node.storage.location import Location
from node.storage.storage import Storage
from node.storage.unfinished import Unfinished
from node.transcode import lossless


@dataclass(frozen=True)
class Begun:
    """An instance of which the archive file is written, but neither durable nor in its place."""

    file: Unfinished
    settlement: lossless.Settlement
    at: float


def begin(storage: Storage, order: Order) -> Begun:
    """Encode and prove an instance, and write its archive file; ``finish`` it, or discard the file.

    Raises
    ------
    IntegrityFailure
        The received bytes are not those that were acknowledged.
    OutOfSpace, StorageFailure
        They cannot be read, or the file cannot be written, for now.
    """
    with storage.open(Location.parse(order.location)) as file:
        if order.keep_reason:
            settlement = lossless.keep(
                file, order.transfer_syntax_uid, order.keep_reason, data_set_sha256=order.data_set_sha256
            )
        else:
            settlement = lossless.settle(
                file,
                order.transfer_syntax_uid,
                order.choices,
                data_set_sha256=order.data_set_sha256,
                frame_bytes=order.frame_bytes,
                measure=order.measure,
                deflate_bytes=order.deflate_bytes,
            )
        with settlement:
            private = {
                **settlement.private,
                "received": {**settlement.private["received"], "provenance": json.loads(order.provenance)},
                "at": order.at,
            }
            meta = archive.part10(
                order.sop_class_uid,
                order.sop_instance_uid,
                settlement.stored_transfer_syntax_uid,
                private,
                Provenance.from_json(order.provenance),
            )
            written = storage.begin_settling(
                order.sop_instance_uid,
                chain([meta], settlement.chunks()),
                data_set_sha256=order.data_set_sha256,
            )
            return Begun(written, settlement, order.at)


def finish(storage: Storage, begun: Sequence[Begun]) -> list[Settled | NodeError]:
    """Have archive files durable, whole and in their places, together; how each is stored, or what is wrong.

    Doing it twice is harmless: a file that is there is replaced in one step by an equal one.
    """
    return [
        place
        if isinstance(place, NodeError)
        else Settled(
            place,
            one.settlement.stored_transfer_syntax_uid,
            one.settlement.kept_reason,
            {**one.settlement.proof, "at": one.at},
            one.settlement.choices,
        )
        for one, place in zip(begun, storage.finish_settling([one.file for one in begun]), strict=True)
    ]
