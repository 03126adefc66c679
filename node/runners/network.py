"""A network as a model: arrays made of the inputs, tensors made of the arrays, findings of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.registry import UnusableModel
from models.types import (
    DerivedImage,
    Findings,
    Image,
    Inputs,
    Volume,
)
from node.catalogue.folder_tables import InputTable, ModelFolder, OutputTable
from node.catalogue.folder_values import unit
from node.config.config_values import suggestion
from node.runners import conclusions, intensities, marks, regions, replies
from node.runners.failures import FolderFault
from node.runners.frames import refuse_apart
from node.runners.placement import Placement, onto, place
from node.runners.tensors import Answer, Answers, to_tensor
from node.runners.windows import slide

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorKind:
    """What a runtime says of an input: ``shape`` has None for a length that is free."""

    name: str
    shape: tuple[int | None, ...] | None = None


class Session(Protocol):
    """A loaded network. ``outputs`` is empty where the runtime cannot say what there is."""

    @property
    def inputs(self) -> Sequence[TensorKind]:
        """The tensors that it takes."""
        ...

    @property
    def outputs(self) -> Sequence[str]:
        """The names of what it returns."""
        ...

    def run(self, tensors: Tensors) -> Mapping[str, Answer]:
        """Return what the network says; raise RuntimeError when it fails."""
        ...


@dataclass(frozen=True)
class _Prepared:
    """An input as an array (axis 0, axis 1, axis 2[, sample]), and where it lies."""

    array: NDArray[Any]
    placement: Placement


class NetworkModel:
    """A ``models.base.Model`` of a model folder whose runner gives a session."""

    def __init__(self, folder: ModelFolder, session: Session) -> None:
        self.card = folder.card
        self.needs = tuple(one.need for one in folder.inputs)
        self.parameters = folder.parameters
        self._session = session
        self._folder = _bound(folder, session)

    def predict(self, inputs: Inputs) -> Findings:
        """Return what the network finds; raise ValueError when the input is unfit."""
        folder = self._folder
        prepared = self._prepared(inputs)
        first = prepared[folder.inputs[0].need.name]
        answers = self._ask(prepared)
        findings = Findings()
        probabilities: dict[str, NDArray[np.float32]] = {}
        asked = conclusions.probabilities_asked(folder)
        for table in folder.outputs:
            on = table.on or folder.inputs[0].need.name
            if on not in prepared:
                continue
            there = _placement_of_answers(prepared[on], first)
            findings = self._with(findings, table, answers, there, inputs, asked, probabilities)
        return conclusions.concluded(folder, inputs, findings, probabilities)

    # --- the way there -------------------------------------------------------

    def _prepared(self, inputs: Inputs) -> dict[str, _Prepared]:
        tables = self._folder.inputs
        found: dict[str, _Prepared] = {}
        primary = inputs.given[tables[0].need.name]
        first = _placement(tables[0], primary)
        for table in tables:
            given = inputs.given.get(table.need.name)
            if given is None:
                continue
            if isinstance(given, Volume) and isinstance(primary, Volume) and given is not primary:
                # all tensors of a network share one grid, that of the first
                refuse_apart("inputs", (table.need.name, given), (tables[0].need.name, primary))
                voxels = onto(
                    given.voxels,
                    given.affine,
                    primary.voxels.shape,
                    primary.affine,
                    table.interpolation,
                    float(given.voxels.min()),
                )
                given = replace(given, voxels=voxels, affine=primary.affine, spacing_mm=primary.spacing_mm)
                placement = first
            else:
                placement = first if given is primary else _placement(table, given)
            found[table.need.name] = _Prepared(_array(table, given, placement), placement)
        return found

    def _ask(self, prepared: Mapping[str, _Prepared]) -> Answers:
        tables = self._folder.inputs
        layout = tables[0].layout
        takes_slices = "D" not in layout
        first = prepared[tables[0].need.name].array
        if not takes_slices:
            return Answers([self._run(self._tensors(prepared, slice(None)))], False)
        return Answers(
            [self._run(self._tensors(prepared, slice(index, index + 1))) for index in range(len(first))], True
        )

    def _tensors(self, prepared: Mapping[str, _Prepared], part: slice) -> Tensors:
        """Make the tensors of a run; inputs of one tensor are its channels, missing ones are zeros."""
        tables = self._folder.inputs
        first = prepared[tables[0].need.name].array
        parts: dict[str, list[NDArray[Any]]] = {}
        for table in tables:
            one = prepared.get(table.need.name)
            array = one.array[part] if one is not None else np.zeros_like(first[part])
            parts.setdefault(table.tensor, []).append(to_tensor(array, table.layout, table.dtype))
        layouts = {table.tensor: table.layout for table in tables}
        return {
            name: np.concatenate(each, axis=layouts[name].index("C")) if len(each) > 1 else each[0]
            for name, each in parts.items()
        }

    def _run(self, tensors: Tensors) -> Mapping[str, Answer]:
        table = self._folder.inputs[0]
        if table.sliding is None:
            self._refuse_other_shape(tensors)
            return self._session.run(tensors)
        axes = [table.layout.index(letter) for letter in "DHW" if letter in table.layout]
        wanted = {one.tensor for one in self._folder.outputs}

        def predict(windows: Tensors) -> Tensors:
            self._refuse_other_shape(windows)
            answers = self._session.run(windows)
            return {name: answers[name] for name in wanted}

        return slide(tensors, axes, table.sliding, predict)

    def _refuse_other_shape(self, tensors: Tensors) -> None:
        for kind in self._session.inputs:
            shape = tensors[kind.name].shape if kind.name in tensors else None
            if kind.shape is None or shape is None:
                continue
            fits = len(shape) == len(kind.shape) and all(
                want in (None, have) for want, have in zip(kind.shape, shape, strict=True)
            )
            if not fits:
                wanted = ", ".join("any" if one is None else str(one) for one in kind.shape)
                raise FolderFault(
                    f"the network takes '{kind.name}' as ({wanted}), and this input makes {shape}; "
                    "'size', 'resize', 'layout' or 'sliding' of its [[input]] have to fit"
                )

    # --- the way back --------------------------------------------------------

    def _with(
        self,
        findings: Findings,
        table: OutputTable,
        answers: Answers,
        placement: Placement,
        inputs: Inputs,
        asked: frozenset[str],
        probabilities: dict[str, NDArray[np.float32]],
    ) -> Findings:
        given = inputs.given[table.on] if table.on else inputs.primary
        if table.kind in ("segmentation", "fractional"):
            scores = answers.spatial(table.tensor, table.layout, placement.shape)
            voxel_ml = given.voxel_ml if isinstance(given, Volume) else 0.0
            found = regions.regions(scores, table, placement, voxel_ml, inputs.parameters, asked)
            for one in found:
                if one.probability is not None:
                    probabilities[one.segment.name] = one.probability
            return replace(findings, segments=(*findings.segments, *(one.segment for one in found)))
        if table.kind == "classification":
            made = replies.evaluations(answers, table, inputs.parameters)
            return replace(findings, evaluations=(*findings.evaluations, *made))
        if table.kind == "regression":
            number = replies.measurement(answers, table)
            return replace(findings, measurements=(*findings.measurements, number))
        if table.kind in ("points", "boxes"):
            places = marks.marks(answers, table, placement, inputs.parameters)
            return replace(findings, marks=(*findings.marks, *places))
        return replace(findings, images=(*findings.images, _image(table, answers, placement, given)))


def _image(table: OutputTable, answers: Answers, placement: Placement, given: object) -> DerivedImage:
    channels = answers.spatial(table.tensor, table.layout, placement.shape)
    if table.element >= channels.shape[0]:
        there = regions.channels_of(table, channels.shape[0])
        raise FolderFault(f"output {table.name}: element is {table.element}, {there}")
    values = channels[table.element].astype(np.float32) * np.float32(table.scale) + np.float32(table.offset)
    assert isinstance(given, Volume | Image)
    outside = float(given.voxels.min() if isinstance(given, Volume) else given.pixels.min())
    voxels = placement.back(values, "linear", 0.0 if table.kind == "map" else outside)
    return DerivedImage(
        table.name,
        table.label or table.name,
        voxels.astype(np.float32, copy=False),
        table.unit or unit(given.unit),
        "map" if table.kind == "map" else "image",
        quantity=table.concept,
        on=table.on,
    )


def _placement(table: InputTable, given: object) -> Placement:
    affine: NDArray[np.float64] | None = None
    spacing: tuple[float, ...] = ()
    if isinstance(given, Image):
        shape = given.pixels.shape[:3]
    elif isinstance(given, Volume):
        shape, affine, spacing = given.voxels.shape, given.affine, given.spacing_mm
    else:
        raise ValueError(f"the input {table.need.name} is neither a volume nor an image")
    takes_slices = "D" not in table.layout
    return place(
        shape,
        affine,
        orientation=table.orientation,
        spacing_mm=table.spacing_mm,
        source_spacing_mm=spacing,
        resize=table.resize,
        size=table.size,
        divisible_by=table.divisible_by,
        least=table.sliding.roi if table.sliding is not None else (),
        divide_all=not takes_slices,
    )


def _array(table: InputTable, given: object, placement: Placement) -> NDArray[Any]:
    if isinstance(given, Image):
        values = intensities.samples(given.pixels, table.channels)
    else:
        assert isinstance(given, Volume)
        values = given.voxels
    scaled = placement.resampled(placement.turned(values), table.interpolation)
    return placement.fitted(intensities.normalised(scaled, table.normalise), table.fill)


def _placement_of_answers(prepared: _Prepared, first: _Prepared) -> Placement:
    """Return where the answers for an input lie; they have the shape that the first one has."""
    if prepared.placement.shape != first.placement.shape:
        raise ValueError("the inputs of the network have different shapes; findings can only be on the first")
    return prepared.placement


# --- names of tensors --------------------------------------------------------


def _bound(folder: ModelFolder, session: Session) -> ModelFolder:
    """Fill in which tensor each table means, and the layouts; refuse names that the network has not.

    Raises
    ------
    UnusableModel
    """
    names = [one.name for one in session.inputs]
    inputs = []
    for number, table in enumerate(folder.inputs):
        default = "NCHW" if table.need.kind == "image" else "NCDHW"
        tensor = table.tensor or _default(table.need.name, names, number, len(folder.inputs))
        _refuse_unknown(folder, f"[[input]] {table.need.name}", tensor, names)
        inputs.append(replace(table, tensor=tensor, layout=table.layout or default))
    missing = [name for name in names if name not in {one.tensor for one in inputs}]
    if missing:
        raise UnusableModel(
            f"{folder.path}: no [[input]] is given to the tensor '{missing[0]}' of the network"
        )
    shapes = {one.name: one.shape for one in session.inputs}
    for table in inputs:
        # there are none where the runtime does not know them
        shape = shapes.get(table.tensor)
        if shape and len(shape) != len(table.layout):
            raise UnusableModel(
                f"{folder.path}: [[input]] {table.need.name}: the tensor '{table.tensor}' has {len(shape)} "
                f"axes, and its layout is {table.layout}"
            )
    doubled = {one.tensor for one in inputs if sum(each.tensor == one.tensor for each in inputs) > 1}
    if any("C" not in one.layout for one in inputs if one.tensor in doubled):
        raise UnusableModel(
            f"{folder.path}: several inputs are channels of one tensor, whose layout has no C"
        )
    if len({"D" in one.layout for one in inputs}) > 1:
        raise UnusableModel(f"{folder.path}: some inputs are volumes to the network and others are slices")
    outputs = []
    for number, output in enumerate(folder.outputs):
        tensor = output.tensor or _default(output.name, session.outputs, number, len(folder.outputs))
        for name in filter(None, (tensor, output.scores, output.classes)):
            _refuse_unknown(folder, f"[[output]] {output.name}", name, session.outputs)
        outputs.append(replace(output, tensor=tensor, layout=output.layout or inputs[0].layout))
    for one in outputs if inputs[0].sliding is not None else ():
        if one.kind not in ("segmentation", "fractional", "image", "map") or one.activation == "labels":
            what = "a map of labels" if one.activation == "labels" else f"a {one.kind}"
            raise UnusableModel(f"{folder.path}: [[output]] {one.name}: {what} cannot be joined from windows")
    return replace(folder, inputs=tuple(inputs), outputs=tuple(outputs))


def _default(name: str, names: Sequence[str], number: int, count: int) -> str:
    if name in names:
        return name
    if len(names) == 1 or count == 1:
        return names[0] if names else "0"
    return names[number] if number < len(names) else name


def _refuse_unknown(folder: ModelFolder, what: str, name: str, names: Sequence[str]) -> None:
    if names and name not in names:
        hint = suggestion(name, names) or f"; there are {', '.join(names)}"
        raise UnusableModel(f"{folder.path}: {what}: the network has no tensor '{name}'{hint}")
