"""A node with everything real but analyses: storage, index, ingest, jobs, server. Ticks by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset

from handlers.bindings import BINDINGS
from node.clock import Clock
from node.completion import Completion
from node.config.settings import (
    AnalysisConfig,
    Config,
    JobsConfig,
    LimitsConfig,
    NodeConfig,
    PeerConfig,
    StorageConfig,
    StudyConfig,
)
from node.index import schema
from node.index.database import Database
from node.index.index import Index, Provenance, StoredInstance
from node.ingest.ingest import Ingest
from node.jobs import listing
from node.jobs.policy import RetryPolicy
from node.jobs.queue import Queue
from node.jobs.schedule import Schedule
from node.jobs.worker import Engine, Group
from node.refusals import Refusals
from node.sending.memory import SendingMemory
from node.series.source_series import Holdings
from node.services import Services
from node.storage.storage import Storage
from node.tasks.commit import CommitTask
from node.tasks.confirm import ConfirmTask
from node.tasks.deliver import DeliverTask
from node.tasks.select import SelectTask
from node.tasks.sweep import SweepTask
from node.verification import look_again
from node.wire.peers import Peers
from node.wire.server import Server
from tests.support import made


class SmallNode:
    """The services and server of a node, and shorthands for tests."""

    def __init__(self, services: Services, server: Server) -> None:
        self.services = services
        self.server = server
        self.schedule = Schedule(services)
        peer_tasks: Sequence[Any] = (DeliverTask(), ConfirmTask(), CommitTask())
        work = RetryPolicy.for_work(services.config.jobs)
        delivery = RetryPolicy.for_delivery(services.config.jobs)
        self.engine = Engine(
            services,
            [
                Group("work", {task.kind: task for task in (SelectTask(), SweepTask())}, 1, work),
                Group("delivery", {task.kind: task for task in peer_tasks}, 16, delivery, is_by_lane=True),
            ],
        )

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def holdings(self) -> Holdings:
        """What it holds, as its analyses read it."""
        services = self.services
        return Holdings(services.storage, services.config.limits, partial(look_again, services))

    def receive(
        self, *data_sets: Dataset, transfer_syntax_uid: str = uid.ExplicitVRLittleEndian
    ) -> list[str]:
        """Take instances in, as if a scanner had sent them; return their SOP Instance UIDs.

        Their rows are committed, so that other processes see them as well.
        """
        received = []
        for data_set in data_sets:
            provenance = Provenance(
                calling_ae_title="SCANNER",
                called_ae_title="ANODE",
                peer_address="127.0.0.1",
                association=0,
                received_at=self.services.clock.timestamp(),
            )
            self.services.ingest.receive(
                [[made.encoded(data_set, transfer_syntax_uid)]],
                sop_class_uid=str(data_set.SOPClassUID),
                sop_instance_uid=str(data_set.SOPInstanceUID),
                transfer_syntax_uid=str(transfer_syntax_uid),
                provenance=provenance,
            )
            received.append(str(data_set.SOPInstanceUID))
        with self.services.database.read():
            return received

    def stored(self, sop_instance_uid: str) -> StoredInstance:
        with self.services.database.read() as connection:
            stored = self.services.index.get(connection, sop_instance_uid)
        assert stored is not None
        return stored

    def enqueue_delivery(self, peer: str, *sop_instance_uids: str, reason: str = "route") -> None:
        """Enqueue deliveries as routes and results do."""

        def work(connection: Any) -> None:
            for sop_instance_uid in sop_instance_uids:
                self.services.queue.enqueue(
                    connection,
                    "deliver",
                    key=f"{peer}/{sop_instance_uid}/{reason}",
                    payload={"sop_instance_uid": sop_instance_uid, "peer": peer, "reason": reason},
                    lane=peer,
                    study_instance_uid=self.stored(sop_instance_uid).study_instance_uid,
                )

        self.services.database.write(work)

    def jobs(self, **wanted: Any) -> list[dict[str, Any]]:
        with self.services.database.read() as connection:
            return listing.jobs(connection, limit=1000, **wanted)

    def deliveries(self) -> dict[str, dict[str, Any]]:
        """Delivery jobs by SOP Instance UID."""
        return {job["payload"]["sop_instance_uid"]: job for job in self.jobs(kind="deliver")}


def config(
    folder: Path,
    *,
    peers: Sequence[PeerConfig] = (),
    analyses: Sequence[AnalysisConfig] = (),
    network_timeout_seconds: float = 10.0,
    port: int = 0,
    **jobs: Any,
) -> Config:
    return Config(
        node=NodeConfig(port=port, data_dir=folder),
        limits=LimitsConfig(network_timeout_seconds=network_timeout_seconds, artim_timeout_seconds=5.0),
        study=StudyConfig(quiet_seconds=60),
        storage=StorageConfig(segment_bytes=8 << 20, spare_segments=2, free_space_reserve_bytes=1 << 20),
        jobs=JobsConfig(**jobs),
        peers=tuple(peers),
        analyses=tuple(analyses),
    )


@contextmanager
def small_node(settings: Config, clock: Clock | None = None) -> Iterator[SmallNode]:
    """A running server with its services; the engine is started by the test."""
    clock = clock or Clock()
    folder = settings.node.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as exits:
        database = Database(folder / "index.sqlite", clock=clock, schema=schema.STATEMENTS)
        exits.callback(database.close)
        storage = Storage(folder, settings.storage, clock, reclaim_grace_seconds=0.0)
        exits.callback(storage.close)
        index, queue, completion = Index(clock), Queue(clock, database), Completion(settings, clock)
        ingest = Ingest(
            config=settings,
            clock=clock,
            database=database,
            index=index,
            storage=storage,
            queue=queue,
            completion=completion,
        )
        services = Services(
            settings,
            clock,
            database,
            index,
            storage,
            queue,
            completion,
            ingest,
            Peers(settings),
            SendingMemory.of(settings),
            Refusals(clock, folder),
        )
        ingest.replay()
        server = Server(services, BINDINGS)
        node = SmallNode(services, server)
        server.start()
        exits.callback(server.stop, 5.0)
        exits.callback(node.engine.stop)
        yield node
