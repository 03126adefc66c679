"""The frozen bundle that handlers and tasks are given."""

from __future__ import annotations

from dataclasses import dataclass

from node.clock import Clock
from node.completion import Completion
from node.config import Config
from node.database import Database
from node.index import Index
from node.ingest import Ingest
from node.jobs.queue import Queue
from node.storage.storage import Storage
from node.wire.peers import Peers


@dataclass(frozen=True)
class Services:
    """Everything long-lived, built once by ``node/app.py``."""

    config: Config
    clock: Clock
    database: Database
    index: Index
    storage: Storage
    queue: Queue
    completion: Completion
    ingest: Ingest
    peers: Peers
