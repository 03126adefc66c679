"""The contract that every model keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from models.types import Code, Findings, Inputs, ParameterValue


@dataclass(frozen=True)
class ModelCard:
    """What a model is, for ``anode models`` and for every result object.

    ``name`` is what ``config.toml`` says; ``version`` changes whenever an output can change.
    ``procedure`` is the imaging procedure reported on by default; ``outputs`` says in words
    what comes back; ``limits`` what it must not be used for.
    """

    name: str
    version: str
    title: str
    intended_use: str
    limits: str
    inputs: str
    outputs: str
    evidence: str
    licence: str
    family: Code
    manufacturer: str = "anode"
    weights_sha256: str = ""


@dataclass(frozen=True)
class Need:
    """One input of a model.

    Attributes
    ----------
    name
        by which ``Inputs.given`` has it, and ``[[analyses]] inputs`` says which series it is
    kind
        ``"volume"``: the series passed the geometry checks and is one regular grid. ``"image"``: the
        one instance with pixels of a series. ``"series"``: its instances as they are
    comes_from
        ``"series"`` is the one that the analysis was started for, and is the first need of every
        model; ``"study"`` another of the same study; ``"prior"`` one of an earlier study of the
        same patient
    is_optional
        whether the model runs without it
    modalities
        others are refused by name; empty is any
    unit
        UCUM code that the values must have; empty is any
    min_slices
        fewer slices are refused by name
    """

    name: str
    kind: Literal["volume", "image", "series"] = "volume"
    comes_from: Literal["series", "study", "prior"] = "series"
    is_optional: bool = False
    modalities: tuple[str, ...] = ()
    unit: str = ""
    min_slices: int = 0


#: What most models need.
NEEDS_VOLUME = (Need("volume", "volume"),)
NEEDS_IMAGE = (Need("image", "image"),)
NEEDS_SERIES = (Need("series", "series"),)


@dataclass(frozen=True)
class Parameter:
    """Something that a stanza may set. Its type is that of ``default`` (a whole number is a number, too).

    ``minimum`` and ``maximum`` bound a number, both included; ``choices`` are the only values, if any.
    """

    name: str
    default: ParameterValue
    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[ParameterValue, ...] = ()


class Model(Protocol):
    """A pure function with a card.

    Same input, same output. Only the constructor may read, and only the weights it is given.
    ``needs`` says what is in ``Inputs.given``, the primary one first.
    """

    card: ModelCard
    needs: tuple[Need, ...]
    parameters: tuple[Parameter, ...]

    def predict(self, inputs: Inputs) -> Findings:
        """Return the findings; raise ``ValueError`` with a reason when the input is unfit."""
        ...
