"""What a model's process left of a run: findings, or why there are none, as an error that says it."""

from __future__ import annotations

import signal

from models.types import Findings, Inputs
from node.errors import (
    AnodeError,
    JobError,
    ModelCrashed,
    ModelNotConfined,
    ModelOutOfMemory,
    ModelReplaced,
    ModelUnusable,
    RefusedByModel,
    ResultInvalid,
)
from node.processes import child, foreign_files
from node.processes.job_folder import JobFolder
from node.processes.model_process import ProcessEnded


def result(model: str, folder: JobFolder, inputs: Inputs) -> Findings:
    """Read what a model found in ``inputs``, from the folder of its run.

    Raises
    ------
    RefusedByModel
        the model refused the input
    ModelCrashed
        there is no result
    ResultInvalid
        a result that cannot be read
    """
    try:
        found = folder.read_result(inputs)
    except FileNotFoundError:
        raise ModelCrashed(f"model {model} left no result: {last_words(folder)}") from None
    except (ValueError, OSError) as error:
        raise ResultInvalid(f"the result of model {model} cannot be read: {error}") from error
    if isinstance(found, str):
        raise RefusedByModel(f"model {model} refuses the series: {found}")
    return found


def last_words(folder: JobFolder) -> str:
    """What the process said last on standard error: in the run, or else before it."""
    said_of_run = (folder.results / child.ERRORS).exists()
    return foreign_files.last_words(folder.results if said_of_run else folder.results.parent, child.ERRORS)


def of_answer(model: str, what: str, about: str) -> AnodeError:
    """What it means that a process answers this in the place of what it was asked for."""
    if what == child.FAILED:
        return ModelUnusable(f"model {model} cannot be loaded: {about}")
    if what == child.REPLACED:
        return ModelReplaced(f"the folder or package of model {model} has changed: {about}")
    if what == child.EXPLAINED:
        return ModelCrashed(f"model {model} failed: {about}")
    if what == child.OUT_OF_MEMORY:
        return ModelOutOfMemory(f"model {model} found no more memory: {about}")
    return ResultInvalid(f"the process of model {model} is out of step: it answers {what[:20]!r}")


def of_end(model: str, ended: ProcessEnded, last_words: str) -> JobError:
    """Why there is no result of a process that has ended; ``last_words`` are those of the model."""
    if ended.unconfined:
        return ModelNotConfined(f"model {model} could not be confined: {ended.unconfined}")
    if ended.memory:
        return ModelOutOfMemory(f"model {model} was ended: {ended.memory}")
    if ended.status == -signal.SIGKILL:
        # The node did not do it: the system ends the largest process when memory is short.
        return ModelOutOfMemory(f"the process of model {model} was killed, most likely for lack of memory")
    if not ended.status:
        return ModelCrashed(f"model {model} left no result: {last_words}")
    named = signal.strsignal(-ended.status) if ended.status < 0 else None
    how = f"signal {named or -ended.status}" if ended.status < 0 else f"exit status {ended.status}"
    return ModelCrashed(f"model {model} ended by {how}: {last_words}")


def not_permitted(model: str) -> ModelNotConfined:
    """Why a model does not run where nothing can shut it in."""
    return ModelNotConfined(
        f"model {model} was not run: this system permits not the namespaces that keep it from the network, "
        "the archive and the node's processes",
        action="permit namespaces to the node's user; or set 'allow_network = true' for the analysis, with "
        "which the model can reach all that the node's user does",
    )
