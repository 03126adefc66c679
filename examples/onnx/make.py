"""Make the model folder: ``python make.py FOLDER``. Needs the packages onnx and numpy."""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from node.catalogue import pinned_files

HERE = Path(__file__).parent
RADIUS = 2


def kernel() -> np.ndarray:
    """A Gaussian of one voxel in (channel, channel, axis, axis, axis), with the sum 1."""
    at = np.arange(-RADIUS, RADIUS + 1)
    one = np.exp(-0.5 * at.astype(np.float64) ** 2)
    cube = one[:, None, None] * one[None, :, None] * one[None, None, :]
    return (cube / cube.sum()).astype(np.float32)[None, None]


def network() -> onnx.ModelProto:
    """Smooth, and say how far above 250 HU (0.625 of the window) a voxel is."""
    size = ["batch", 1, "x", "y", "z"]
    nodes = [
        helper.make_node("Conv", ["volume", "kernel"], ["smooth"], pads=[RADIUS] * 6),
        helper.make_node("Sub", ["smooth", "middle"], ["above"]),
        helper.make_node("Mul", ["above", "steepness"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bone",
        [helper.make_tensor_value_info("volume", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, size)],
        [
            numpy_helper.from_array(kernel(), "kernel"),
            numpy_helper.from_array(np.float32([0.625]), "middle"),
            numpy_helper.from_array(np.float32([60.0]), "steepness"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(folder: Path) -> None:
    """Write the network with its weights in a second file, and pin both."""
    folder.mkdir(parents=True)
    onnx.save_model(
        network(),
        folder / "bone.onnx",
        save_as_external_data=True,
        location="bone.onnx.data",
        size_threshold=0,
    )
    stated = (HERE / "analysis.toml").read_text(encoding="utf-8")
    (folder / "analysis.toml").write_text(stated + pinned_files.stanza(folder), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
