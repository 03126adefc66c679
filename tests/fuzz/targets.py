"""The targets by name, their corpus, and how their inputs are changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from tests.fuzz import header_target, matching_target
from tests.fuzz.element_mutation import ElementMutator
from tests.fuzz.header_target import HeaderTarget
from tests.fuzz.matching_target import MatchingTarget
from tests.fuzz.pdu_mutation import MutateBytes, PduMutator
from tests.fuzz.pdu_target import PduTarget

NAMES = ("header", "matching", "pdu")
CORPUS = Path(__file__).parent / "corpus"
EVOLVED = CORPUS / "evolved"

Mutate = Callable[[bytes, int, Random], bytes]


def corpus(name: str) -> dict[str, bytes]:
    """The inputs that are kept for a target, by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}


def evolved(name: str) -> dict[str, bytes]:
    """What the fuzzer has made of them so far, by file name: inputs that take branches of their own."""
    with ZipFile(EVOLVED / f"{name}.zip") as kept:
        return {entry.filename: kept.read(entry) for entry in kept.infolist()}


def keep_evolved(name: str, inputs: Mapping[str, bytes]) -> None:
    """Write down what ``evolved`` is to return; the same inputs always give the same file."""
    EVOLVED.mkdir(parents=True, exist_ok=True)
    with ZipFile(EVOLVED / f"{name}.zip", "w", ZIP_DEFLATED, compresslevel=9) as kept:
        for file, data in sorted(inputs.items()):
            kept.writestr(ZipInfo(file), data, ZIP_DEFLATED)


def target_of(name: str) -> Any:
    """A fresh target; a context manager with ``know``, ``run`` and ``run_thoroughly``."""
    return {"header": HeaderTarget, "matching": MatchingTarget, "pdu": PduTarget}[name]()


def mutator_of(name: str, seeds: Iterable[bytes], mutate_bytes: MutateBytes) -> Mutate:
    """How an input of the target is changed."""
    if name == "pdu":
        return PduMutator(seeds, mutate_bytes)
    module: Any = {"header": header_target, "matching": matching_target}[name]
    return ElementMutator(seeds, mutate_bytes, prefix_bytes=module.CHOICE_BYTES, encodings=module.ENCODINGS)
