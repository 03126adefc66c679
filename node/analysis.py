"""One run of one model: inputs to its process, findings back, and the result objects of them.

What the node does with a stored study (``node/tasks/analyze.py``) and ``anode analyze`` with files is the
same from here on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.types import Code, Findings, Mark, Measurement, ParameterValue, Segment
from node.catalogue.catalogue import Description
from node.config.settings import AnalysisConfig, Device, ResultKind
from node.errors import ResultInvalid
from node.found import OF_REGION
from node.processes.job_folder import JobFolder
from node.processes.workers import Workers, WorkerSpec
from node.results.build import PredecessorReference, ResultObject, RunFacts, build
from node.results.withholding import withheld
from node.series.model_inputs import Material


@dataclass(frozen=True)
class Order:
    """What is to be run, and what is to be made of it.

    ``started_at`` is frozen before the first try, so that a repeated run makes the same objects.
    ``parameters`` has a value for each parameter of the model.
    """

    analysis: str
    description: Description
    parameters: Mapping[str, ParameterValue]
    results: Sequence[ResultKind]
    started_at: datetime
    timeout_seconds: float
    memory_mb: int = 0
    device: Device = "auto"
    threads: int = 1
    allow_network: bool = False

    @property
    def model(self) -> str:
        """What a run is recorded by: name, version, and a digest of weights, parameters and kinds of results.

        Two runs over the same input are the same when this is.
        """
        card = self.description.card
        name = f"{card.name} {card.version}"
        has_all = tuple(self.results) == AnalysisConfig("", "").results
        if has_all and not self.parameters and not card.weights_sha256:
            return name
        told = [card.weights_sha256, dict(self.parameters), [] if has_all else sorted(self.results)]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        return f"{name} {digest[:8]}"

    @property
    def spec(self) -> WorkerSpec:
        """The process that it can share with others."""
        return WorkerSpec(self.description, self.device, self.threads, self.memory_mb, self.allow_network)


@dataclass(frozen=True)
class Performed:
    """What came of it: the findings without what a failed check withholds, and the objects made of them."""

    findings: Findings
    objects: list[ResultObject]


def threads_of_each(analyses: int) -> int:
    """How many threads a model may use, so that those at the same time have every core between them."""
    return max(1, (os.cpu_count() or 1) // max(1, analyses))


def perform(
    workers: Workers,
    order: Order,
    read: Callable[[JobFolder], Material],
    predecessor: PredecessorReference | None = None,
) -> Performed:
    """Run the model on what ``read`` puts into the folder of the run, and make the result objects.

    The model's process starts while the input is read.

    Raises
    ------
    ObjectError
        the input is unfit, or the model refuses it
    JobError
        the model failed, or what it found makes no valid result; nothing of the run is left
    NodeError
        the disk is full or cannot be read
    RunStopped
        ``workers`` was stopped
    """
    with workers.lease(order.spec) as worker, worker.job_folder() as folder:
        material = read(folder)
        findings = withheld(worker.run(material.inputs, folder, order.timeout_seconds))
        facts = RunFacts(
            analysis=order.analysis,
            card=order.description.card,
            started_at=order.started_at,
            parameters=order.parameters,
            predecessor=predecessor,
        )
        try:
            objects = build(findings, material.source, facts, order.results)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            # Findings are checked before, and yet a model may say what nobody thought of.
            name = order.description.card.name
            raise ResultInvalid(f"the findings of {name} make no valid result: {error}") from error
    return Performed(findings, objects)


#: Of a text, so much can be asked for.
_MOST_CHARACTERS = 200


def facts_of(findings: Findings) -> dict[str, tuple[str, ...]]:
    """What ``when`` of a later analysis can ask for: a name, and the words any of which may match.

    Numbers of the whole series and of each region (``left-lung.Volume``), answers by meaning and by code,
    and checks (``passed`` or ``failed``). What two things are called alike has the words of both. What a
    failed check withholds has no words.
    """
    facts: dict[str, tuple[str, ...]] = {}

    def note(name: str, *words: str) -> None:
        facts[name] = (*facts.get(name, ()), *(word[:_MOST_CHARACTERS] for word in words))

    for one in findings.measurements:
        note(_name(one), f"{one.value:.15g}")
    for answer in findings.evaluations:
        note(answer.name or answer.concept.meaning, *_words(answer.value))
    for check in findings.checks:
        note(check.name, "passed" if check.passed else "failed")
    regions: list[Segment | Mark] = [*findings.segments, *findings.marks]
    for region in regions:
        note(region.name, "found")
        for one in region.measurements:
            note(f"{region.name}.{_name(one)}", f"{one.value:.15g}")
        for answer in region.evaluations:
            note(f"{region.name}.{answer.name or answer.concept.meaning}", *_words(answer.value))
    for check in findings.checks:
        for name in () if check.passed else check.withholds:
            is_region = any(name == region.name for region in regions)
            facts.setdefault(name + OF_REGION if is_region else name, ())
    return facts


def _name(measurement: Measurement) -> str:
    """As a check's ``withholds`` names it."""
    return measurement.name or measurement.concept.meaning


def _words(value: Code | str) -> tuple[str, ...]:
    return (value.meaning, value.value) if isinstance(value, Code) else (value,)
