"""What is to be run, and what is to be made of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from models.types import ParameterValue
from node.catalogue.catalogue import Description
from node.config.settings import AnalysisConfig, Device, ResultKind
from node.processes.workers import WorkerSpec
from node.results.facts import PredecessorReference, RunFacts


@dataclass(frozen=True)
class Order:
    """One run of one model.

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

    def facts(self, predecessor: PredecessorReference | None) -> RunFacts:
        """What its result objects say of the run."""
        return RunFacts(
            analysis=self.analysis,
            card=self.description.card,
            started_at=self.started_at,
            parameters=self.parameters,
            predecessor=predecessor,
        )


def threads_of_each(analyses: int) -> int:
    """How many threads a model may use, so that those at the same time have every core between them."""
    return max(1, (os.cpu_count() or 1) // max(1, analyses))
