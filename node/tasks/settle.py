"""Settles received instances: from the receive log into an archive file, compressed and proven."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

from node.errors import DatabaseFailure, IntegrityFailure, OutOfSpace, StorageFailure
from node.index.index import StoredInstance
from node.jobs.task import Done, Job, Outcome, Retry, SetAside
from node.services import Services
from node.storage import archive
from node.transcode import lossless

logger = logging.getLogger(__name__)


class SettleTask:
    """Writes the archive file of each instance and points the index to it.

    Doing it twice is harmless: the file is replaced in one step by an equal one, and a settled
    instance is left alone. Until the job is done, the instance is read from the receive log.
    """

    kind = "settle"
    batch = 16

    def run(self, services: Services, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Settle one instance after the other."""
        for job in jobs:
            yield job, _settle(services, str(job.payload["sop_instance_uid"]))


def _settle(services: Services, sop_instance_uid: str) -> Outcome:
    with services.database.read() as connection:
        stored = services.index.get(connection, sop_instance_uid)
    if stored is None:
        return SetAside(DatabaseFailure("the instance is not in the index"))
    if stored.is_settled:
        return Done()
    try:
        return _write(services, stored)
    except IntegrityFailure as error:
        with services.database.read() as connection:
            now = services.index.get(connection, sop_instance_uid)
        if now is not None and now.location != stored.location:
            return Retry(error)  # the good bytes have come again meanwhile
        logger.error("received bytes are damaged", extra={"segment": stored.location.path})
        return SetAside(error)
    except (OutOfSpace, StorageFailure) as error:
        return Retry(error)


def _write(services: Services, stored: StoredInstance) -> Outcome:
    with (
        services.storage.open(stored.location) as file,
        lossless.settle(
            file,
            stored.received_transfer_syntax_uid,
            services.config.transcode.to,
            data_set_sha256=stored.data_set_sha256,
        ) as settlement,
    ):
        private = {
            **settlement.private,
            "received": {
                **settlement.private["received"],
                "provenance": json.loads(stored.provenance.to_json()),
            },
            "at": services.clock.timestamp(),
        }
        meta = archive.part10(
            stored.sop_class_uid,
            stored.sop_instance_uid,
            settlement.stored_transfer_syntax_uid,
            private,
            stored.provenance,
        )
        location = services.storage.settle(stored.sop_instance_uid, chain([meta], settlement.chunks()))
        transfer_syntax_uid, kept_reason = settlement.stored_transfer_syntax_uid, settlement.kept_reason
        proof = {**settlement.proof, "at": private["at"]}
    logger.debug(
        "instance settled",
        extra={"sop_instance_uid": stored.sop_instance_uid, "kept_reason": kept_reason},
    )

    def apply(connection: sqlite3.Connection) -> None:
        services.index.settle(
            connection,
            stored.sop_instance_uid,
            location=location,
            stored_transfer_syntax_uid=transfer_syntax_uid,
            kept_reason=kept_reason,
            proof=proof,
        )

    return Done(apply)
