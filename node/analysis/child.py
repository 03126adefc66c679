"""A process that makes the ends of runs: reads and decodes series, and turns findings into DICOM objects.

Both take long and hold what a process shares: the interpreter's lock, memory, the fate of a faulty codec.
The node answers scanners meanwhile. Like the processes that settle it opens no database.
"""

from __future__ import annotations

import gc
import json
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node import subordinate, work_folder
from node.analysis.messages import Conclude, Forget, Message, Prepare, of_error
from node.clock import Clock
from node.config.settings import LimitsConfig, StorageConfig
from node.errors import AnodeError, NodeError, UnexpectedFailure
from node.index.index import StoredInstance
from node.storage.storage import Storage

if TYPE_CHECKING:
    from node.analysis.making import Making
    from node.series.source_series import Holdings

#: As far as models stand back; the node's own priority is 0.
NICENESS = 10
#: Findings may take as much processor time to become objects as the model may take, and so much at least.
LEAST_CONCLUDING_SECONDS = 600.0


def main(connection: Connection, data_dir: str, storage: StorageConfig, limits: LimitsConfig) -> None:
    """Serve ``connection`` until the node closes it; the target of the process."""
    # The node itself needs none of this, and would have to hold it.
    from node.series.source_series import Holdings

    subordinate.begin_service(NICENESS)
    kept = Storage(Path(data_dir), storage, Clock())
    try:
        work_folder.use_for_temporary_files(Path(data_dir))
        analyst = _Analyst(Holdings(kept, limits, _Asking(connection)), storage.free_space_reserve_bytes)
        while True:
            for part in analyst.answer(connection.recv()):
                connection.send_bytes(part)
    except (EOFError, OSError, NodeError):
        # The node ended, or ended this process; or nothing can be written in its data directory.
        return
    finally:
        kept.close()


_DONE = json.dumps({"facts": {}, "objects": []}).encode()


class _Asking:
    """Asks the node where an instance is now that is not where it should be."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __call__(self, stored: StoredInstance, problem: str) -> StoredInstance | None:
        asked = {"unread": stored.sop_instance_uid, "problem": problem}
        self._connection.send_bytes(json.dumps(asked).encode())
        now: StoredInstance | None = self._connection.recv()
        return now


class _Analyst:
    """Makes the ends of one run after the other."""

    def __init__(self, holdings: Holdings, reserve_bytes: int) -> None:
        self._holdings = holdings
        self._reserve_bytes = reserve_bytes
        self._making: Making | None = None
        self._prepared: Prepare | None = None

    def answer(self, message: Message) -> list[bytes]:
        """Do what the node asks for; return the parts of the answer."""
        try:
            match message:
                case Prepare():
                    return self._prepare(message)
                case Conclude():
                    return self._conclude()
                case Forget():
                    return self._forget()
        except AnodeError as error:
            return [_json(of_error(error))]
        except Exception as error:
            unforeseen = UnexpectedFailure(f"{type(error).__name__}: {error}")
            return [_json(of_error(unforeseen.with_traceback(error.__traceback__)))]

    def _prepare(self, message: Prepare) -> list[bytes]:
        from node.analysis.making import Making
        from node.processes.job_folder import JobFolder
        from node.series import model_inputs
        from node.series.model_inputs import Material

        total = sum(one.data_set_bytes for chosen in message.chosen.values() for one in chosen)
        subordinate.limit_processor_time(subordinate.cpu_seconds(total))

        def read(folder: JobFolder) -> Material:
            return model_inputs.read(
                self._holdings,
                message.chosen,
                message.order.description.needs,
                message.digest,
                message.order.parameters,
                folder,
                reserve_bytes=self._reserve_bytes,
            )

        self._making, self._prepared = Making(message.order, read, message.predecessor), message
        self._making.prepare(message.folder)
        return [_DONE]

    def _forget(self) -> list[bytes]:
        self._making = self._prepared = None
        gc.collect()
        return [_DONE]

    def _conclude(self) -> list[bytes]:
        from node.analysis.facts import facts_of

        assert self._making is not None
        assert self._prepared is not None
        making, folder, order = self._making, self._prepared.folder, self._prepared.order
        # Whatever comes of it: headers and arrays of the run are not held until the next.
        self._making = self._prepared = None
        subordinate.limit_processor_time(max(order.timeout_seconds, LEAST_CONCLUDING_SECONDS))
        performed = making.conclude(folder)
        told = {
            "facts": facts_of(performed.findings),
            "objects": [
                {
                    "kind": one.kind,
                    "sop_class_uid": one.sop_class_uid,
                    "sop_instance_uid": one.sop_instance_uid,
                    "series_instance_uid": one.series_instance_uid,
                }
                for one in performed.objects
            ],
        }
        parts = [_json(told), *(one.part10 for one in performed.objects)]
        del making, performed
        gc.collect()
        return parts


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()
