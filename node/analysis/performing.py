"""One run of one model, from its input to what is made of its findings.

What the node does with a stored study (``node/tasks/analyze.py``) and ``anode analyze`` with files is the
same from here on. They differ in where the ends of the run are made: ``making`` in this process,
``analysts`` in another.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from node.analysis.order import Order
from node.errors import JobError, NodeError
from node.processes.job_folder import JobFolder
from node.processes.workers import Workers

Made = TypeVar("Made", covariant=True)


class Maker(Protocol[Made]):
    """Who makes both ends of a run, as ``making.Making`` does."""

    def prepare(self, folder: JobFolder) -> None:
        """Write the job that the model is given into ``folder``."""

    def conclude(self, folder: JobFolder) -> Made:
        """Make the result objects of what the model left in ``folder``."""


def perform(workers: Workers, order: Order, maker: Maker[Made]) -> Made:
    """Run the model on what ``maker`` prepares, and return what it makes of the findings.

    The model's process starts while the input is read.

    Raises
    ------
    ObjectError
        the input is unfit, or the model refuses it
    JobError
        the model failed, or what it found makes no valid result; nothing of the run is left
    NodeError
        the disk is full or cannot be read, or a process of the node's own ended
    RunStopped
        ``workers`` was stopped
    """
    with workers.lease(order.spec) as worker, worker.job_folder() as folder:
        maker.prepare(folder)
        worker.run(folder, order.timeout_seconds)
        try:
            return maker.conclude(folder)
        except (JobError, NodeError):
            # Its process may be in a state in which all that it finds is wrong.
            worker.discard()
            raise
