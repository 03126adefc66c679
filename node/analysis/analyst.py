"""Makes the ends of one run after the other, in a process of its own (``child``)."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node import subordinate
from node.analysis.facts import facts_of
from node.analysis.making import Making
from node.analysis.messages import Conclude, Forget, Message, Prepare, of_error
from node.errors import AnodeError, UnexpectedFailure
from node.processes.job_folder import JobFolder
from node.series import model_inputs
from node.series.model_inputs import Material
from node.series.source_series import Holdings

#: Findings may take as much processor time to become objects as the model may take, and so much at least.
LEAST_CONCLUDING_SECONDS = 600.0
_DONE = json.dumps({"facts": {}, "objects": []}).encode()


@dataclass
class _Run:
    """A run that was prepared: what Making holds of it, and as what it was asked for."""

    making: Making
    asked: Prepare


class Analyst:
    """Answers one message after the other.

    Parameters
    ----------
    holdings
        where series are read from
    reserve_bytes
        that stay free on the disk
    """

    def __init__(self, holdings: Holdings, *, reserve_bytes: int) -> None:
        self._holdings = holdings
        self._reserve_bytes = reserve_bytes
        self._run: _Run | None = None

    def answer(self, message: Message) -> list[bytes]:
        """Do what the node asks for; return the parts of the answer."""
        try:
            match message:
                case Prepare():
                    return self._prepare(message)
                case Conclude():
                    return self._conclude()
                case Forget():
                    self._let_go()
                    return [_DONE]
        except AnodeError as error:
            return [_json(of_error(error))]
        except Exception as error:
            unforeseen = UnexpectedFailure(f"{type(error).__name__}: {error}")
            return [_json(of_error(unforeseen.with_traceback(error.__traceback__)))]

    def _prepare(self, asked: Prepare) -> list[bytes]:
        total = sum(one.data_set_bytes for chosen in asked.chosen.values() for one in chosen)
        subordinate.limit_processor_time(subordinate.cpu_seconds(total))
        self._run = _Run(Making(asked.order, self._reader(asked), asked.predecessor), asked)
        self._run.making.prepare(asked.folder)
        return [_DONE]

    def _reader(self, asked: Prepare) -> Callable[[JobFolder], Material]:
        def read(folder: JobFolder) -> Material:
            return model_inputs.read(
                self._holdings,
                asked.chosen,
                asked.order.description.needs,
                asked.digest,
                asked.order.parameters,
                folder,
                reserve_bytes=self._reserve_bytes,
            )

        return read

    def _conclude(self) -> list[bytes]:
        assert self._run is not None
        making, asked = self._run.making, self._run.asked
        subordinate.limit_processor_time(max(asked.order.timeout_seconds, LEAST_CONCLUDING_SECONDS))
        try:
            performed = making.conclude(asked.folder)
        finally:
            del making
            self._let_go()
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
        return [_json(told), *(one.part10 for one in performed.objects)]

    def _let_go(self) -> None:
        """Hold nothing of the run until the next: its arrays lie in files that are removed."""
        self._run = None
        gc.collect()


def _json(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()
