"""The two ends of a run: the job that the model is given, and the result objects of what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.types import Findings
from node.analysis.order import Order
from node.errors import ResultInvalid
from node.processes import outcomes
from node.processes.job_folder import JobFolder
from node.results.build import PredecessorReference, ResultObject, build
from node.results.withholding import withheld
from node.series.model_inputs import Material
from node.storage import disk


@dataclass(frozen=True)
class Performed:
    """What came of it: the findings without what a failed check withholds, and the objects made of them."""

    findings: Findings
    objects: list[ResultObject]


class Making:
    """Both ends of one run, in this process.

    Parameters
    ----------
    read
        puts the arrays of the input into the folder of the run
    predecessor
        the Structured Report that the new one supersedes
    """

    def __init__(
        self,
        order: Order,
        read: Callable[[JobFolder], Material],
        predecessor: PredecessorReference | None = None,
    ) -> None:
        self._order = order
        self._read = read
        self._predecessor = predecessor
        self._material: Material | None = None

    def prepare(self, folder: JobFolder) -> None:
        """Write the job.

        Raises ObjectError when the input is unfit, NodeError when the disk is full or cannot be read.
        """
        self._material = self._read(folder)
        try:
            folder.write_job(self._material.inputs)
        except OSError as error:
            raise disk.failure(error, "writing the input of an analysis") from error

    def conclude(self, folder: JobFolder) -> Performed:
        """Read what the model found in the job, and make the result objects.

        Raises
        ------
        RefusedByModel
            the model refuses the input
        ModelCrashed, ResultInvalid
            there is no result, or one that makes no valid objects
        """
        assert self._material is not None, "a job is prepared first"
        name = self._order.description.card.name
        findings = withheld(outcomes.result(name, folder, self._material.inputs))
        facts = self._order.facts(self._predecessor)
        try:
            objects = build(findings, self._material.source, facts, self._order.results)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            # Findings are checked before, and yet a model may say what nobody thought of.
            raise ResultInvalid(f"the findings of {name} make no valid result: {error}") from error
        except MemoryError:
            raise ResultInvalid(f"the findings of {name} need more memory than there is") from None
        return Performed(findings, objects)
