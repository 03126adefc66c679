"""The rooms of a stopped node, for commands that write in them as the node would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from node.cli.access import refuse_root
from node.cli.opening import Records, database_path
from node.config.settings import Config

if TYPE_CHECKING:
    from node.services import Services


@contextmanager
def writable(config: Config) -> Iterator[Services]:
    """Open what is in a data directory that this process has locked."""
    from node.clock import Clock
    from node.completion import Completion
    from node.index import schema
    from node.index.database import Database
    from node.index.index import Index
    from node.jobs.queue import Queue
    from node.storage import disk
    from node.storage.storage import Storage
    from node.storage.tenure import Tenure

    clock = Clock()
    with ExitStack() as exits:
        database = Database(database_path(config), clock=clock, schema=schema.STATEMENTS)
        exits.callback(database.close)
        records = Records(
            config, clock, database, Index(clock), Queue(clock, database), Completion(config, clock)
        )
        with database.read() as connection:
            segments = records.index.segments(connection)
        for folder in ("archive", "log"):
            disk.make_directory(config.node.data_dir / folder)
        tenure = Tenure.begin(config.node.data_dir)
        services = records.services(
            Storage(config.node.data_dir, config.storage, clock, tenure=tenure, known_segments=segments)
        )
        exits.callback(services.storage.close)
        yield services


@contextmanager
def stopped_node(config: Config) -> Iterator[Services]:
    """Take the data directory of a node that does not run, as its start does, but for its port.

    Raises
    ------
    ArchiveUnavailable
        A node runs there, or it is not the directory that was there.
    WrongUsage
        It is another user's, and this is root.
    """
    from node.jobs import clock_watch
    from node.storage.guard import DataDirectory
    from node.tasks.sweep import is_needed

    refuse_root(config.node.data_dir)
    directory = DataDirectory.beside(config.node.data_dir, config.source)
    directory.open()
    try:
        directory.check_index(database_path(config))
        with writable(config) as services:
            with services.database.read() as connection:
                holds_instances = services.index.holds_any(connection)
                directory.check_index_knows(holds_instances=holds_instances)
                directory.check_archive(holds_settled=services.index.holds_settled(connection))
                directory.check_log(services.index.segments(connection), holds_instances=holds_instances)
            clock_watch.make_up(services)
            services.ingest.replay()
            services.storage.prepare(lambda segment: is_needed(services, segment))
            yield services
    finally:
        directory.close()
