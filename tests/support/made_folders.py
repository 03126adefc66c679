"""Small model folders for tests: an ONNX network, and an ``analysis.toml`` to go with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.types import Image, Inputs, Volume
from node.catalogue import catalogue, pinned_files
from node.runners import loading

ANALYSIS = """
[analysis]
name = "made"
version = "1"
title = "A model for tests"
manufacturer = "tests"
intended_use = "tests"
limits = "all"
licence = "none"
evidence = "none"
"""
LABEL = 'labels = [{ index = 0, name = "thing" }]'


def network(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: dict[str, Sequence[Any]],
    outputs: dict[str, Sequence[Any] | None],
    constants: dict[str, NDArray[Any]] | None = None,
) -> Path:
    """Write a network whose tensors are all float32."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def identity(path: Path, shape: Sequence[Any] = ("n", 1, "d", "h", "w")) -> Path:
    """Write a network that says what it was given."""
    node = helper.make_node("Identity", ["given"], ["said"])
    return network(path, [node], inputs={"given": shape}, outputs={"said": shape})


def folder(path: Path, stated: str, *, runner: str = 'kind = "onnx"', analysis: str = ANALYSIS) -> Path:
    """Write ``analysis.toml`` of what is ``stated``, and pin what is in the folder already."""
    text = f"{analysis}\n[runner]\n{runner}\n{stated}\n{pinned_files.stanza(path)}"
    (path / "analysis.toml").write_text(text)
    return path


def predict(path: Path, given: Volume | Image | dict[str, Any], **parameters: Any) -> Any:
    """Load the model of a folder and run it, one thread, on the CPU."""
    description = catalogue.describe(str(path))
    model = loading.load(str(path), device="cpu", threads=1)
    inputs = given if isinstance(given, dict) else {description.needs[0].name: given}
    return model.predict(Inputs(inputs, catalogue.read_parameters(description, parameters)))


def volume(voxels: NDArray[Any], affine: NDArray[np.float64] | None = None, unit: str = "[hnsf'U]") -> Volume:
    """Return a volume of one Frame of Reference, by default an axial one with steps of 3, 1 and 1 mm."""
    if affine is None:
        affine = np.array([[0, 0, 1, -10], [0, 1, 0, -20], [3, 0, 0, -30], [0, 0, 0, 1]], np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    normal = np.cross(affine[:3, 1], affine[:3, 2])
    between = abs(affine[:3, 0] @ normal) / np.linalg.norm(normal)
    spacing = (float(between), float(lengths[1]), float(lengths[2]))
    return Volume(voxels, affine, spacing, unit, {"Modality": "CT", "FrameOfReferenceUID": "a"})
