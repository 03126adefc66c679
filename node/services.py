"""The frozen bundle that handlers and tasks are given."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.audit.trail import AuditTrail
from node.clock import Clock
from node.completion import Completion
from node.config.settings import Config
from node.index.database import Database
from node.index.index import Index
from node.ingest.ingest import Ingest
from node.jobs.queue import Queue
from node.refusals import Refusals
from node.sending.memory import SendingMemory
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
    sending_memory: SendingMemory
    refusals: Refusals
    audit: AuditTrail = field(default_factory=AuditTrail.off)
