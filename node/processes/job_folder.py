"""What passes between the node and a model's process: files of JSON and ``.npy``, never a pickle.

::

    job.json        {contract, parameters, inputs}    written by the node
    *.npy           voxels and pixels, mapped by the model's process, read only
    result.json     {contract, findings} or {contract, refused}; written last, then renamed
    result-*.npy    masks (one packed bit a voxel, numpy.packbits) and other arrays of the findings

Results lie in a folder of their own where the model's process may not write to its inputs. The node never
maps a file that the other side may still cut short: the system would end the node for it.

Both sides use this module, and nothing else of each other. How a value looks in JSON follows from the
dataclasses of ``models.types``: an object with a key for each field, arrays as the name of their file.
"""

from __future__ import annotations

import json
import mmap
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import Findings, Image, Input, Inputs, Series, Volume
from node.processes.agreement import refuse_misshapen, refuse_unsound
from node.processes.declared_types import declared
from node.processes.foreign_array import PACKED, ArrayFiles, unpacked
from node.processes.foreign_files import open_plain
from node.processes.texts import MOST_REASON, clean
from node.runners.failures import NotAsAgreed

CONTRACT = 2
JOB, RESULT = "job.json", "result.json"
_KINDS: dict[str, type[Input]] = {"image": Image, "volume": Volume, "series": Series}
_GIVEN, _FOUND = "array", "result"
#: Arrays up to so many bytes are read, not mapped.
_SMALL_BYTES = 4096
#: Of ``result.json``: what the node makes of it takes up to forty times that in memory.
MOST_JSON_BYTES = 8 << 20


class JobFolder:
    """One run's folder, and that of its results if they have another. The caller makes and removes them."""

    def __init__(self, path: Path, results: Path | None = None) -> None:
        # The model's process has another working directory.
        self.path = path.resolve()
        self.results = self.path if results is None else results.resolve()
        self._arrays = 0

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Make an array that lies in a file of the folder, so that the model's process can map it.

        Raises OSError when the disk has no space for it.
        """
        if 0 in shape:
            return np.empty(shape, dtype)
        self._arrays += 1
        path = self.path / f"array-{self._arrays:05}.npy"
        array: NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
        # Who first writes to a page for which there is no space is ended by the system, and that is the node.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    # --- the way there -------------------------------------------------------

    def write_job(self, inputs: Inputs) -> None:
        """Write what the model gets; arrays from ``allocate`` are where they should be already."""
        given = {
            name: {"kind": next(kind for kind, of in _KINDS.items() if isinstance(one, of))}
            | self._plain(one, _GIVEN)
            for name, one in inputs.given.items()
        }
        parameters = self._plain(inputs.parameters, _GIVEN)
        self._write(self.path / JOB, {"contract": CONTRACT, "parameters": parameters, "inputs": given})

    def read_job(self) -> Inputs:
        """Read what ``write_job`` wrote; arrays are mapped read only."""
        job = self._content(JOB, (self.path / JOB).read_bytes())
        given = {}
        for name, raw in job["inputs"].items():
            kind = _KINDS[raw.pop("kind")]
            given[name] = self._made(kind, raw, self._map)
        return Inputs(given, _as_tuple(job["parameters"]))

    # --- the way back --------------------------------------------------------

    def write_findings(self, findings: Findings, inputs: Inputs) -> None:
        """Write what the model found in ``inputs``.

        Raises NotAsAgreed, and writes nothing, when that is no valid Findings.
        """
        try:
            refuse_unsound(findings, inputs)
        except (TypeError, ValueError) as error:
            raise NotAsAgreed(str(error)) from error
        self._write(self.results / RESULT, {"contract": CONTRACT, "findings": self._plain(findings, _FOUND)})

    def write_refusal(self, reason: str) -> None:
        """Write that the model refuses the input."""
        self._write(self.results / RESULT, {"contract": CONTRACT, "refused": clean(reason, MOST_REASON)})

    def read_result(self, inputs: Inputs) -> Findings | str:
        """Read the findings, or the reason of a refusal.

        Raises FileNotFoundError when there is no result, ValueError when it is broken.
        """
        try:
            with open_plain(self.results, RESULT, MOST_JSON_BYTES) as file:
                text = file.read(MOST_JSON_BYTES + 1)
            if len(text) > MOST_JSON_BYTES:
                raise ValueError(f"{RESULT} is larger than {MOST_JSON_BYTES >> 20} MB")
            result = self._content(RESULT, text)
            if "refused" in result:
                reason = clean(str(result["refused"]), MOST_REASON)
                return reason or "the model refuses the input without a reason"
            files = ArrayFiles(self.results)
            # Whoever wrote it may have written anything: nothing is read before it is known to be as agreed.
            refuse_misshapen(self._made(Findings, result["findings"], files.outline), inputs)
            findings: Findings = self._made(Findings, result["findings"], files.read)
            refuse_unsound(findings, inputs)
        except (KeyError, TypeError, IndexError, AttributeError, ArithmeticError, EOFError) as error:
            raise ValueError(f"the result is not as agreed: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise ValueError("the result is larger or deeper than the node can read") from error
        return findings

    # --- values --------------------------------------------------------------

    def _plain(self, value: Any, prefix: str) -> Any:
        """Return a value as JSON has it; arrays are written to files."""
        if isinstance(value, np.ndarray):
            return self._save(value, prefix)
        if isinstance(value, np.generic):
            return value.item()
        if is_dataclass(value) and not isinstance(value, type):
            return {one.name: self._plain(getattr(value, one.name), prefix) for one in fields(value)}
        if isinstance(value, Mapping):
            return {str(key): self._plain(one, prefix) for key, one in value.items()}
        if isinstance(value, tuple | list):
            return [self._plain(one, prefix) for one in value]
        return value

    def _made(self, kind: Any, raw: Any, load: Callable[[Any], NDArray[Any]]) -> Any:
        """Make a value of the declared type ``kind`` from what JSON had; ``load`` loads arrays.

        Texts, numbers and truth values are taken as they are: ``agreement`` looks at them.
        """
        if isinstance(kind, type) and is_dataclass(kind):
            kinds = declared(kind)
            return kind(**{name: self._made(kinds[name], one, load) for name, one in raw.items()})
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is np.ndarray:
            return load(raw)
        if origin is tuple:
            if not isinstance(raw, list):
                raise TypeError(f"{str(raw)[:40]!r} is no list")
            if arguments[-1:] == (Ellipsis,):
                return tuple(self._made(arguments[0], one, load) for one in raw)
            return tuple(self._made(each, one, load) for each, one in zip(arguments, raw, strict=True))
        if origin in (typing.Union, types.UnionType):
            if raw is None and type(None) in arguments:
                return None
            for each in arguments:
                if each is not type(None) and _may_be(each, raw):
                    return self._made(each, raw, load)
            raise ValueError(f"{str(raw)[:40]!r} is none of {kind}")
        if origin is typing.Literal and raw not in arguments:
            raise ValueError(f"{str(raw)[:40]!r} is none of {arguments}")
        return _as_tuple(raw)

    # --- files ---------------------------------------------------------------

    def _save(self, array: NDArray[Any], prefix: str) -> dict[str, Any]:
        if isinstance(array, np.memmap) and array.filename is not None:
            path = Path(array.filename)
            # A view into the file has its name, too: only the whole array is what the file holds.
            if prefix == _GIVEN and path.parent == self.path and isinstance(array.base, mmap.mmap):
                # What was written is there for every process; whether the disk has it is nobody's concern.
                return {"file": path.name}
        folder = self.path if prefix == _GIVEN else self.results
        self._arrays += 1
        name = f"{prefix}-{self._arrays:05}.npy"
        if array.dtype == np.bool_:
            np.save(folder / name, np.packbits(array), allow_pickle=False)
            return {"file": name, PACKED: list(array.shape)}
        np.save(folder / name, array, allow_pickle=False)
        return {"file": name}

    def _map(self, raw: Any) -> NDArray[Any]:
        """Map an array of the inputs, read only."""
        array: NDArray[Any] = np.load(self.path / raw["file"], mmap_mode="r", allow_pickle=False)
        if PACKED in raw:
            array = unpacked(array, raw[PACKED])
        elif array.nbytes <= _SMALL_BYTES:
            array = np.array(array)
        array.flags.writeable = False
        return array

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        unfinished = path.with_name(f"{path.name}.part")
        unfinished.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        unfinished.replace(path)

    def _content(self, name: str, text: bytes) -> dict[str, Any]:
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("contract") != CONTRACT:
            raise ValueError(f"{name} does not follow contract {CONTRACT}")
        return content


def _may_be(kind: Any, raw: Any) -> bool:
    """Whether what JSON had can be a ``kind``, one of a union."""
    origin = typing.get_origin(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return isinstance(raw, dict) and raw.keys() <= {one.name for one in fields(kind)}
    if origin is np.ndarray:
        return isinstance(raw, dict) and "file" in raw
    if origin is tuple:
        return isinstance(raw, list)
    if kind is float:
        return isinstance(raw, float | int) and not isinstance(raw, bool)
    return not isinstance(kind, type) or isinstance(raw, kind)


def _as_tuple(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_as_tuple(one) for one in value)
    if isinstance(value, dict):
        return {key: _as_tuple(one) for key, one in value.items()}
    return value
