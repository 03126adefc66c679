"""The composition root: builds everything from the configuration, starts in order, stops in reverse."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from handlers.bindings import BINDINGS
from node import alarms, refusals, running, work_folder
from node.analysis.analysts import Analysts
from node.audit.trail import AuditTrail
from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config
from node.importing.desk import Desk
from node.index import database, identity, schema
from node.index.database import Database
from node.index.index import Index
from node.ingest.ingest import Ingest
from node.jobs import clock_watch
from node.jobs.policy import RetryPolicy
from node.jobs.queue import Queue
from node.jobs.schedule import Schedule
from node.jobs.worker import Engine, Group
from node.processes.workers import Workers
from node.repairs import Repairs
from node.sending.memory import SendingMemory
from node.services import Services
from node.storage.guard import DataDirectory
from node.storage.storage import Storage
from node.storage.tenure import Tenure
from node.tasks.analyze import AnalyzeTask
from node.tasks.commit import CommitTask
from node.tasks.confirm import ConfirmTask
from node.tasks.deliver import DeliverTask
from node.tasks.select import SelectTask
from node.tasks.settle import SettleTask
from node.tasks.sweep import SweepTask, is_needed
from node.tasks.verify import VerifyTask
from node.wire.peers import Peers
from node.wire.server import Server

logger = logging.getLogger(__name__)


class App:
    """A whole node. Nothing is touched before ``start``.

    Parameters
    ----------
    config : Config
        The whole configuration.
    clock : Clock or None
        None is the clock of the machine.
    owns_process : bool
        Whether the process does nothing else; then its temporary files lie in the data directory.

    Attributes
    ----------
    services : Services
        The bundle of handlers and tasks; exists from ``start`` on.
    server : Server
        The Application Entity; ``server.port`` is the port that was bound.
    """

    services: Services
    server: Server
    engine: Engine
    schedule: Schedule

    def __init__(self, config: Config, clock: Clock | None = None, *, owns_process: bool = False) -> None:
        self._config = config
        self._clock = clock or Clock()
        self._owns_process = owns_process
        self._exits = ExitStack()
        self._config_sha256 = running.digest_of(config.source)

    def start(self) -> None:
        """Take the data directory, repair what the last run left, and open the port last.

        Raises ArchiveUnavailable, DatabaseFailure, StorageFailure or PortInUse; nothing is left
        running then.
        """
        with ExitStack() as exits:
            self._start(exits)
            self._exits = exits.pop_all()

    def _start(self, exits: ExitStack) -> None:
        config, clock = self._config, self._clock
        directory = DataDirectory.beside(config.node.data_dir, config.source)
        directory.open()
        exits.callback(directory.close)
        repairs = Repairs(analyses_removed=work_folder.clear(config.node.data_dir))
        if self._owns_process:
            work_folder.use_for_all_temporary_files(config.node.data_dir)
        alarms.reset(config.node.data_dir)
        refusals.reset(config.node.data_dir)
        index_file = config.node.data_dir / database.FILE_NAME
        directory.check_index(index_file)
        index_database = Database(index_file, clock=clock, schema=schema.STATEMENTS)
        exits.callback(index_database.close)
        audit = AuditTrail(config, clock, partial(_patient_of, index_database))
        audit.start()
        exits.callback(audit.stop)
        index = Index(clock)
        with index_database.read() as connection:
            holds_instances = index.holds_any(connection)
            directory.check_index_knows(holds_instances=holds_instances)
            directory.check_archive(holds_settled=index.holds_settled(connection))
            segments = index.segments(connection)
        gone = directory.check_log(segments, holds_instances=holds_instances)
        tenure = Tenure.begin(config.node.data_dir)
        storage = Storage(config.node.data_dir, config.storage, clock, tenure=tenure, known_segments=segments)
        exits.callback(storage.close)
        queue = Queue(clock, index_database)
        completion = Completion(config, clock)
        ingest = Ingest(
            config=config,
            clock=clock,
            database=index_database,
            index=index,
            storage=storage,
            queue=queue,
            completion=completion,
        )
        peers = Peers(config)
        self.services = Services(
            config,
            clock,
            index_database,
            index,
            storage,
            queue,
            completion,
            ingest,
            peers,
            SendingMemory.of(config),
            refusals.Refusals(clock, config.node.data_dir),
            audit,
        )
        self.services.refusals.observe(audit.refused)
        exits.callback(self.services.refusals.flush, is_last=True)
        clock_watch.make_up(self.services)
        ingest.replay(repairs)
        self._tell_of_gone(gone)
        storage.prepare(lambda segment: is_needed(self.services, segment))
        settling = SettleTask()
        exits.callback(settling.cancel)
        workers = Workers(
            config.node.data_dir,
            reserve_bytes=config.storage.free_space_reserve_bytes,
            hidden=config.private_files,
        )
        exits.callback(workers.stop)
        analysts = Analysts(config)
        exits.callback(analysts.stop)
        self.engine = Engine(self.services, _groups(config, settling, AnalyzeTask(workers, analysts)))
        self.server = Server(self.services, BINDINGS)
        self.schedule = Schedule(self.services, (workers.end_idle, analysts.end_idle))
        self.server.start()
        exits.callback(self.server.stop, config.node.stop_grace_seconds)
        repairs.jobs_given_back = self.engine.start()
        exits.callback(self.engine.stop)
        if found := repairs.counts():
            logger.warning("repaired at start", extra=found)
        running.record(
            config.node.data_dir,
            port=self.server.port,
            config_sha256=self._config_sha256,
            started_at=clock.timestamp(),
            repairs=repairs,
        )
        self.schedule.start()
        exits.callback(self.schedule.stop)
        desk = Desk(self.services)
        desk.start()
        exits.callback(desk.stop)
        # First of all, so that who is sending has its time while jobs are given back.
        exits.callback(self.server.begin_stop, config.node.stop_grace_seconds)

    def _tell_of_gone(self, segments: Sequence[str]) -> None:
        """Mark the instances in segments that are gone, and let the operator know."""
        services = self.services
        now = services.clock.timestamp()
        for segment in segments:
            problem = f"segment {segment} of the receive log is gone"
            count = services.database.write(
                partial(services.index.mark_segment, segment=segment, found_at=now, problem=problem)
            )
            logger.error(
                "a segment of the receive log is gone", extra={"segment": segment, "instances": count}
            )
        if segments:
            alarms.raise_alarm(
                services.config.node.data_dir,
                alarms.LOG_INCOMPLETE,
                f"segments of the receive log that the index names are gone: {', '.join(segments)}; 'anode "
                "verify' lists their instances, which have to be sent again",
                now,
            )

    def stop(self) -> None:
        """Stop in reverse order; harmless when it does not run."""
        self._exits.close()


def _patient_of(database: Database, study_instance_uid: str) -> tuple[str, str]:
    with database.read() as connection:
        return identity.patient_of(connection, study_instance_uid)


def _groups(config: Config, settling: SettleTask, analyzing: AnalyzeTask) -> tuple[Group, ...]:
    """Which task does which kind of job, and in whose threads."""
    work = RetryPolicy.for_work(config.jobs)
    delivery = RetryPolicy.for_delivery(config.jobs)
    housekeeping = {task.kind: task for task in (SelectTask(), SweepTask())}
    sending = {task.kind: task for task in (DeliverTask(), ConfirmTask())}
    answering = {task.kind: task for task in (CommitTask(),)}
    verifying = VerifyTask()
    lanes = max(16, len(sending) * len(config.peers))
    return (
        # by itself: it waits while a burst of instances comes in
        Group("settling", {settling.kind: settling}, config.jobs.workers, work),
        Group("work", housekeeping, 1, work),
        # by itself: it may take hours
        Group("verification", {verifying.kind: verifying}, 1, work),
        Group("analyses", {analyzing.kind: analyzing}, config.jobs.analyses, work),
        # a thread for each peer and kind, so that peers that stall never hold up another
        Group("delivery", sending, lanes, delivery, is_by_lane=True),
        # anybody who may ask has a lane here, which must not be one of those
        Group("commitment", answering, lanes, delivery, is_by_lane=True),
    )
