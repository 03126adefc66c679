"""Settles one instance: reads its record, encodes, proves, and writes its archive file."""

from __future__ import annotations

import json
from itertools import chain

from node.index.index import Provenance
from node.settling.order import Order, Settled
from node.storage import archive
from node.storage.location import Location
from node.storage.storage import Storage
from node.transcode import lossless


def write(storage: Storage, order: Order) -> Settled:
    """Write the archive file of an instance: durable and whole, or not there at all.

    Doing it twice is harmless: a file that is there is replaced in one step by an equal one.

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
            location = storage.settle(
                order.sop_instance_uid,
                chain([meta], settlement.chunks()),
                data_set_sha256=order.data_set_sha256,
            )
            return Settled(
                location,
                settlement.stored_transfer_syntax_uid,
                settlement.kept_reason,
                {**settlement.proof, "at": order.at},
                settlement.choices,
            )
