"""Networks and classifiers in ONNX files, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.registry import UnusableModel
from node.config.settings import Device
from node.runners.network import TensorKind, Tensors
from node.runners.tensors import Answer, in_type

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxSession:
    """An ONNX file, with the files beside it that hold its weights.

    Parameters
    ----------
    path
        of the file
    device
        ``cuda`` demands a GPU, ``auto`` takes one where onnxruntime has it
    threads
        of one run

    Raises
    ------
    UnusableModel
        when onnxruntime cannot load it, or there is no GPU and one is demanded
    """

    def __init__(self, path: Path, *, device: Device, threads: int) -> None:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # threads that spin while they wait would take the processor from receiving
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.use_deterministic_compute = True
        providers: list[Any] = ["CPUExecutionProvider"]
        has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not has_gpu:
            raise UnusableModel(f"{path}: device is cuda, and onnxruntime here has no CUDA")
        if device != "cpu" and has_gpu:
            # rounding as the processor does
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except _failures() as error:
            raise UnusableModel(f"{path} cannot be loaded: {_first_line(error)}") from error
        self.inputs = [
            TensorKind(one.name, tuple(each if isinstance(each, int) else None for each in one.shape))
            for one in self._session.get_inputs()
        ]
        self.outputs = [one.name for one in self._session.get_outputs()]
        self._dtypes = {one.name: _DTYPES.get(one.type) for one in self._session.get_inputs()}

    def run(self, tensors: Tensors) -> Mapping[str, Answer]:
        """Run the network; tensors are given in the type that it takes, if that can hold them."""
        given: dict[str, Any] = {
            name: in_type(tensor, self._dtypes[name] or tensor.dtype.name) for name, tensor in tensors.items()
        }
        try:
            answers = self._session.run(None, given)
        except _failures() as error:
            raise RuntimeError(f"onnxruntime failed: {_first_line(error)}") from error
        return dict(zip(self.outputs, answers, strict=True))


def _failures() -> tuple[type[Exception], ...]:
    """Whatever onnxruntime raises: its errors have no common root but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded",
             "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException")  # fmt: skip
    return (*(getattr(state, name) for name in names if hasattr(state, name)), RuntimeError, ValueError)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
