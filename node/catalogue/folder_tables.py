"""What ``analysis.toml`` says, read: one dataclass for each of its tables (docs/models.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.base import ModelCard, Need, Parameter
from models.types import Code, ParameterValue
from node.catalogue.pinned_files import PinnedFile

RunnerKind = Literal["python", "onnx", "torch", "monai_bundle", "command"]
Activation = Literal["none", "sigmoid", "softmax", "argmax", "labels"]
OutputKind = Literal[
    "segmentation", "fractional", "classification", "regression", "points", "boxes", "image", "map"
]
MeasurementKind = Literal[
    "volume", "mean", "sd", "minimum", "maximum", "median", "percentile", "share", "count"
]
Quantity = Literal[
    "edge_share", "mean_probability", "uncertain_share", "volume_ml", "components", "probability"
]

#: Kinds of measurements that are told by how they are derived, whatever the quantity.
DERIVED_KINDS = frozenset({"mean", "sd", "minimum", "maximum", "median"})

#: What a measurement of the kind ``volume`` is taken in on inputs of each kind; another unit would make
#: another number of it.
UNITS_OF_A_VOLUME = {"volume": ("ml", "mL", "cm3"), "image": ("mm2",)}

#: A number, or ``"$NAME"``, the value of a parameter.
Setting = float | str
TISSUE = Code("85756007", "SCT", "Tissue")


def setting(value: Setting, parameters: Mapping[str, ParameterValue]) -> float:
    """Return a number that the folder states, or that of the parameter which it names."""
    if not isinstance(value, str):
        return value
    given = parameters[value.removeprefix("$")]
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError(f"parameter {value.removeprefix('$')} is no number")
    return float(given)


@dataclass(frozen=True)
class Step:
    """One step of ``normalise``: ``window``, ``clip``, ``percentile``, ``zscore``, ``minmax`` and so on."""

    kind: str
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sliding:
    """``sliding``: the network sees so much at a time (its axes), overlapping by a share of it."""

    roi: tuple[int, ...]
    overlap: float = 0.25
    mode: str = "gaussian"


@dataclass(frozen=True)
class InputTable:
    """``[[input]]``: what the model needs, and how the array of a network is made of it.

    ``orientation`` says where the axes of the array lead, one letter each; empty is as it comes.
    ``spacing_mm``, ``size``, ``resize`` and ``sliding`` are in the order of these axes.
    """

    need: Need
    tensor: str = ""
    orientation: str = ""
    spacing_mm: tuple[float, ...] = ()
    interpolation: Literal["linear", "nearest"] = "linear"
    resize: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    divisible_by: int = 1
    fill: float = 0.0
    layout: str = ""
    dtype: str = "float32"
    channels: Literal["grey", "rgb", "bgr"] = "grey"
    normalise: tuple[Step, ...] = ()
    sliding: Sliding | None = None


@dataclass(frozen=True)
class LabelTable:
    """One of ``labels``: what an index of the output stands for."""

    index: int
    name: str
    label: str
    type: Code
    category: Code = TISSUE
    laterality: Code | None = None
    site: Code | None = None
    colour: tuple[int, int, int] = (255, 196, 0)


@dataclass(frozen=True)
class Post:
    """One step of ``post`` on a mask: ``largest``, ``fill_holes``, or ``min_ml`` with its value."""

    kind: Literal["largest", "fill_holes", "min_ml"]
    value: Setting = 0.0


@dataclass(frozen=True)
class OutputTable:
    """``[[output]]``: what a tensor of the model says, and in which codes it is reported."""

    name: str
    kind: OutputKind
    label: str = ""
    tensor: str = ""
    on: str = ""
    activation: Activation = "none"
    threshold: Setting = 0.5
    layout: str = ""
    labels: tuple[LabelTable, ...] = ()
    post: tuple[Post, ...] = ()
    concept: Code | None = None
    unit: Code | None = None
    element: int = 0
    scale: float = 1.0
    offset: float = 0.0
    scores: str = ""
    classes: str = ""
    coordinates: str = ""
    form: Literal["corners", "centre_size"] = "corners"
    origin: Literal["centre", "corner"] = "centre"
    most: int = 100


@dataclass(frozen=True)
class MeasurementTable:
    """``[[measurement]]``: a number taken over a segment, in the values of an input."""

    name: str
    of: str
    kind: MeasurementKind
    over: str = ""
    concept: Code | None = None
    unit: Code | None = None
    percentile: float = 50.0
    above: Setting | None = None
    below: Setting | None = None


@dataclass(frozen=True)
class CheckTable:
    """``[[check]]``: bounds on a measurement or on a quantity of a segment; failing, it withholds."""

    name: str
    reason: str
    measurement: str = ""
    quantity: Quantity | None = None
    of: str = ""
    minimum: Setting | None = None
    maximum: Setting | None = None
    withholds: tuple[str, ...] = ("*",)


@dataclass(frozen=True)
class BundleTable:
    """``[runner.bundle]``: where a MONAI bundle has its parts; the defaults are those of the Model Zoo."""

    config: tuple[str, ...] = ("configs/inference.json",)
    metadata: str = "configs/metadata.json"
    weights: str = "models/model.pt"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: str = "preprocessing"
    postprocessing: str = "postprocessing"
    inferer: str = "inferer"
    network: str = "network_def"
    image_key: str = "image"
    prediction_key: str = "pred"


@dataclass(frozen=True)
class RunnerTable:
    """``[runner]``: what runs the model, and the files that it is made of.

    ``unpinned`` are files and folders beside them, such as an environment, that no digest covers.
    """

    kind: RunnerKind
    file: str = ""
    entry: str = ""
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[PinnedFile, ...] = ()
    unpinned: tuple[str, ...] = ()
    bundle: BundleTable = BundleTable()


@dataclass(frozen=True)
class ModelFolder:
    """A whole model folder; ``stated_sha256`` is the SHA-256 (hex) of its ``analysis.toml``."""

    path: Path
    card: ModelCard
    runner: RunnerTable
    inputs: tuple[InputTable, ...]
    parameters: tuple[Parameter, ...] = ()
    outputs: tuple[OutputTable, ...] = ()
    measurements: tuple[MeasurementTable, ...] = ()
    checks: tuple[CheckTable, ...] = ()
    stated_sha256: str = ""
