"""What nearly every command begins with: the configuration, and the records of the data directory."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node import alarms, running
from node.alarms import Alarm
from node.cli import output
from node.config.config_values import ae_title, listed, suggestion
from node.config.settings import Config, PeerConfig
from node.errors import ArchiveUnavailable, WrongUsage

if TYPE_CHECKING:
    from node.clock import Clock
    from node.completion import Completion
    from node.index.database import Database
    from node.index.index import Index, StoredInstance
    from node.jobs.queue import Queue
    from node.running import Running
    from node.services import Services
    from node.storage.storage import Storage

DEFAULT_CONFIG = Path("config.toml")


@dataclass(frozen=True)
class Records:
    """The rooms of the data directory that a command reads while the node may be running."""

    config: Config
    clock: Clock
    database: Database
    index: Index
    queue: Queue
    completion: Completion

    def look_up(self, sop_instance_uid: str) -> StoredInstance | None:
        """Return the row of an instance as it is now; None when it is not held."""
        with self.database.read() as connection:
            return self.index.get(connection, sop_instance_uid)

    def services(self, storage: Storage | None = None) -> Services:
        """Return the bundle of a node; close its storage afterwards, which only reads where none is given."""
        from node.ingest.ingest import Ingest
        from node.refusals import Refusals
        from node.sending.memory import SendingMemory
        from node.services import Services
        from node.storage.storage import Storage
        from node.wire.peers import Peers

        storage = storage or Storage(self.config.node.data_dir, self.config.storage, self.clock)
        ingest = Ingest(
            config=self.config,
            clock=self.clock,
            database=self.database,
            index=self.index,
            storage=storage,
            queue=self.queue,
            completion=self.completion,
        )
        return Services(
            self.config,
            self.clock,
            self.database,
            self.index,
            storage,
            self.queue,
            self.completion,
            ingest,
            Peers(self.config),
            SendingMemory.of(self.config),
            Refusals(self.clock),
        )


def configuration(arguments: argparse.Namespace) -> Config:
    """Load the file that ``--config`` names, or ``./config.toml``, or the defaults where that is absent.

    Raises
    ------
    ConfigurationError
        When the file cannot be used, or the one named with ``--config`` does not exist.
    """
    from node.config import config_file

    if arguments.config is not None:
        return config_file.load(Path(arguments.config))
    if DEFAULT_CONFIG.exists():
        return config_file.load(DEFAULT_CONFIG)
    output.note("no config.toml here: running on the defaults (--config FILE names another file)")
    return config_file.defaults()


def keep_others_out() -> None:
    """Let the files that this command writes be its user's alone, for patients stand in them."""
    os.umask(0o077)


def config_argument(config: Config) -> str:
    """Return ``" --config FILE"`` as a command to be typed needs it, empty for the default file."""
    if config.source is None or config.source == DEFAULT_CONFIG:
        return ""
    return f" --config {config.source}"


def database_path(config: Config) -> Path:
    """Where the database of the data directory lies."""
    from node.index.database import FILE_NAME

    return config.node.data_dir / FILE_NAME


@contextmanager
def records(config: Config) -> Iterator[Records]:
    """Open the records of the data directory; reading does not disturb a running node.

    Raises
    ------
    ArchiveUnavailable
        When there are none yet, or they are not where they were.
    """
    from node.clock import Clock
    from node.completion import Completion
    from node.index.database import Database
    from node.index.index import Index
    from node.jobs.queue import Queue

    path = database_path(config)
    if not os.path.exists(path) or not os.path.getsize(path):
        from node.storage import guard

        # The archive may be there no more, which is another thing than none yet.
        try:
            guard.inspect(config.node.data_dir, guard.state_file_of(config.source))
            guard.DataDirectory.beside(config.node.data_dir, config.source).check_index(path)
        except OSError as error:
            raise ArchiveUnavailable(f"{config.node.data_dir} cannot be read: {error.strerror}") from error
        raise ArchiveUnavailable(
            f"no node has run on {config.node.data_dir} yet",
            action=f"start one with 'anode run{config_argument(config)}', "
            "or name its configuration with --config",
        )
    clock = Clock()
    database = Database.open_read_only(path)
    try:
        yield Records(
            config, clock, database, Index(clock), Queue(clock, database), Completion(config, clock)
        )
    finally:
        database.close()


def is_running(config: Config) -> bool:
    """Whether a node holds the lock of the data directory now."""
    try:
        lock = os.open(config.node.data_dir / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        # Looked at first, so that the lock is not tried while a node that starts may want it.
        os.kill(int(os.pread(lock, 32, 0)), 0)
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except PermissionError:  # a process of another user
        return True
    except (ValueError, ProcessLookupError):
        return False
    finally:
        os.close(lock)
    return False


def started(config: Config) -> Running | None:
    """What the latest start of a node noted; None when there is nothing that can be read."""
    return running.read(config.node.data_dir)


def running_port(config: Config) -> int:
    """Return the port that the running node noted, else the configured one; 0 when nobody knows it."""
    noted = started(config)
    return noted.port if noted is not None and is_running(config) else config.node.port


def stale_configuration(config: Config) -> str:
    """Say that the node runs with another configuration than ``config``; empty when it does not."""
    noted = started(config)
    if noted is None or noted.config_sha256 == running.digest_of(config.source) or not is_running(config):
        return ""
    changed = "the configuration" if config.source is None else config.source.name
    return f"{changed} was changed after the node started; restart it so that it counts"


def standing_alarms(config: Config) -> list[Alarm]:
    """Return the alarms that stand; that of a full disk only while it is still full.

    A node that nobody sends to does not notice that there is space again.
    """
    standing = alarms.standing(config.node.data_dir)
    if any(alarm.name == alarms.DISK_FULL for alarm in standing):
        free_bytes = shutil.disk_usage(config.node.data_dir).free
        if free_bytes >= config.storage.free_space_reserve_bytes:
            return [alarm for alarm in standing if alarm.name != alarms.DISK_FULL]
    return standing


def peer_named(config: Config, text: str) -> PeerConfig:
    """Return the peer with the AE title ``text``, or the one that ``HOST:PORT/AE`` describes.

    Raises
    ------
    WrongUsage
        When ``text`` is neither.
    """
    for peer in config.peers:
        if peer.ae_title == text.strip(" "):
            if not peer.can_be_called:
                raise WrongUsage(f"'{peer.ae_title}' only calls us: its [[peers]] table has no host and port")
            return peer
    address, slash, title = text.partition("/")
    host, colon, port = address.rpartition(":")
    if slash and colon:
        return address_of(host.strip("[]"), port, title)
    titles = [peer.ae_title for peer in config.peers]
    known = f"configured are {listed(titles)}" if titles else "none is configured"
    raise WrongUsage(
        f"'{text}' is not among the peers{suggestion(text, titles)}",
        action=f"{known}; any other is named as HOST:PORT/AE_TITLE, for instance 192.0.2.7:104/PACS",
    )


def address_of(host: str, port: str, title: str) -> PeerConfig:
    """Return a peer that the configuration does not name; raise WrongUsage when it cannot be one."""
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise WrongUsage(f"'{host}:{port}' is not an address: expected HOST:PORT with a port from 1 to 65535")
    try:
        return PeerConfig(ae_title=ae_title(title), host=host, port=int(port))
    except ValueError as error:
        raise WrongUsage(str(error)) from None
