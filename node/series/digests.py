"""By what it is seen that a model is given the same as before, and would find the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from models.types import ParameterValue
from node.errors import StorageFailure
from node.sending import dicom_files
from node.series.selection import Chosen

_CHUNK_BYTES = 1 << 20


def of_series(instances: Iterable[tuple[str, str]]) -> str:
    """SHA-256 in hex over the sorted (SOP Instance UID, data set SHA-256) of a series.

    Two selections with one digest see the same bytes, in whatever order they came.
    """
    digest = hashlib.sha256()
    for sop_instance_uid, data_set_sha256 in sorted(instances):
        digest.update(f"{sop_instance_uid} {data_set_sha256}\n".encode("ascii"))
    return digest.hexdigest()


def of_files(paths: Iterable[Path]) -> str:
    """SHA-256 in hex of the instances in files: what ``of_series`` says of them once they are stored.

    Raises MalformedDataSet or StorageFailure.
    """
    digests = []
    for path in paths:
        file = dicom_files.read(path)
        try:
            with dicom_files.open_data_set(file) as data_set:
                digest = hashlib.sha256()
                while piece := data_set.read(_CHUNK_BYTES):
                    digest.update(piece)
                digests.append((file.sop_instance_uid, digest.hexdigest()))
        except OSError as error:
            raise StorageFailure(f"{path} cannot be read: {error.strerror}") from error
    return of_series(digests)


def of_inputs(chosen: Chosen) -> str:
    """SHA-256 in hex of all instances that a model is given; of one input alone, of its series."""
    return combined(
        {
            name: of_series((one.sop_instance_uid, one.data_set_sha256) for one in instances)
            for name, instances in chosen.items()
        }
    )


def combined(digests: Mapping[str, str]) -> str:
    """The digest of several inputs, from that of each; of one alone, that one."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(json.dumps(dict(digests)).encode()).hexdigest()


def of_selection(
    chosen: Chosen,
    parameters: Mapping[str, ParameterValue],
    facts: Mapping[str, Sequence[str]],
) -> str:
    """SHA-256 in hex of all that decides what a run finds, or whether it is made.

    That is what the model is given, what it is set to, and the ``facts`` of earlier analyses by which
    the series was chosen. Where only the first counts, it is ``of_inputs``.
    """
    seen = of_inputs(chosen)
    if not parameters and not facts:
        return seen
    told = json.dumps([seen, parameters, {key: list(words) for key, words in facts.items()}], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
