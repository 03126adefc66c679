"""What a result object is made from, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import ModelCard
from models.types import Image, ParameterValue, Volume
from node.config.settings import ResultKind


@dataclass(frozen=True)
class Source:
    """A series that was analysed: the one that the analysis was started for, with the others in ``others``.

    Attributes
    ----------
    data_sets
        Headers of the source instances, pixel data not needed, in the order of the slices of
        ``volume`` where there is one. One multi-frame instance is a list of one.
    volume
        What the model was given, when it was given a volume.
    input_digest
        SHA-256 (hex) of everything that the model was given.
    picture_slice
        (row, column) real-world values of an image to show when there is no volume; optional.
    picture_instance
        Index into ``data_sets`` of the instance that ``picture_slice`` is of.
    name
        By which the model's needs, and so its findings, call this input.
    others
        The further inputs that the model was given, by the names of its needs. Only the first has any,
        and its ``input_digest`` covers them all.
    is_prior
        Whether it is of an earlier study of the same patient.
    image
        What the model was given, when it was given an image.
    lacks_prior
        Of the first: whether its model compares with an earlier study, and was given none.
    """

    data_sets: Sequence[Dataset]
    volume: Volume | None
    input_digest: str
    picture_slice: NDArray[Any] | None = None
    picture_instance: int = 0
    name: str = ""
    others: Mapping[str, Source] = field(default_factory=dict)
    is_prior: bool = False
    image: Image | None = None
    lacks_prior: bool = False

    def of(self, name: str) -> Source:
        """Return the input that findings call ``name``, this one for the empty name.

        Raises
        ------
        ValueError
            when the model was given no such input
        """
        if name in ("", self.name):
            return self
        if name not in self.others:
            raise ValueError(f"the findings are on an input '{name}', which was not given")
        return self.others[name]


@dataclass(frozen=True)
class PredecessorReference:
    """The Structured Report that a new one supersedes (PS3.3 section C.17.2, Predecessor Documents)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class RunFacts:
    """One run of one analysis.

    ``started_at`` is frozen when the job is made: it is the Content Date and Time of every
    result, so that a repeated job makes the same objects. It should know its time zone; without
    one it is taken as local time. ``weights_sha256`` is that of the card unless given. ``kinds`` are those
    of the results that are made together, which refer to one another.
    """

    analysis: str
    card: ModelCard
    started_at: datetime
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    weights_sha256: str = ""
    predecessor: PredecessorReference | None = None
    kinds: tuple[ResultKind, ...] = ()

    @property
    def weights(self) -> str:
        """SHA-256 (hex) of the weights, empty when the model has none."""
        return self.weights_sha256 or self.card.weights_sha256


@dataclass(frozen=True)
class ResultObject:
    """One finished SOP instance: ``part10`` is the whole file (PS3.10), Explicit VR Little Endian."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    part10: bytes
