"""The contract that every model keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from models.types import Code, Findings, Inputs


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


class Model(Protocol):
    """A pure function with a card.

    Same input, same output. Only the constructor may read, and only the weights it is given.
    ``needs`` says which field of ``Inputs`` is filled: ``"volume"`` (the series passed the
    geometry checks and is one regular grid) or ``"series"`` (the instances as they are).
    """

    card: ModelCard
    needs: Literal["volume", "series"]

    def predict(self, inputs: Inputs) -> Findings:
        """Return the findings; raise ``ValueError`` with a reason when the input is unfit."""
        ...
