"""What passes between the node and a model's process: one folder, JSON and ``.npy``, never a pickle.

::

    job.json        {contract, model, volume | series}     written by the node
    *.npy           voxels and pixels, mapped by the model's process, read only
    result.json     {contract, findings} or {contract, refused}; written last, then renamed
    mask-*.npy      one packed bit a voxel (numpy.packbits)

Both sides use this module, and nothing else of each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.types import (
    Check,
    Code,
    Evaluation,
    Findings,
    HeaderValue,
    Inputs,
    InstanceView,
    Measurement,
    Segment,
    Series,
    Volume,
)

CONTRACT = 1
JOB, RESULT = "job.json", "result.json"


class JobFolder:
    """One run's folder. The caller makes and removes it."""

    def __init__(self, path: Path) -> None:
        # The model's process has another working directory.
        self.path = path.resolve()
        self._arrays = 0

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Make an array that lies in a file of the folder, so that the model's process can map it."""
        if 0 in shape:
            return np.empty(shape, dtype)
        self._arrays += 1
        path = self.path / f"array-{self._arrays:05}.npy"
        array: NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
        return array

    # --- the way there -------------------------------------------------------

    def write_job(self, model: str, inputs: Inputs) -> None:
        """Write what the model gets; arrays from ``allocate`` are where they should be already."""
        job: dict[str, Any] = {"contract": CONTRACT, "model": model}
        if inputs.volume is not None:
            volume = inputs.volume
            job["volume"] = {
                "voxels": self._save(volume.voxels),
                "affine": volume.affine.tolist(),
                "spacing_mm": list(volume.spacing_mm),
                "unit": volume.unit,
                "header": dict(volume.header),
            }
        if inputs.series is not None:
            job["series"] = [
                {
                    "number": instance.number,
                    "header": dict(instance.header),
                    "pixels": None if instance.pixels is None else self._save(instance.pixels),
                    "pixels_error": instance.pixels_error,
                }
                for instance in inputs.series.instances
            ]
        self._write(JOB, job)

    def read_job(self) -> tuple[str, Inputs]:
        """Read what ``write_job`` wrote; arrays are mapped read only."""
        job = self._read(JOB)
        volume, series = job.get("volume"), job.get("series")
        return job["model"], Inputs(
            volume=None
            if volume is None
            else Volume(
                voxels=self._load(volume["voxels"]),
                affine=np.array(volume["affine"], np.float64),
                spacing_mm=tuple(volume["spacing_mm"]),
                unit=volume["unit"],
                header=_header(volume["header"]),
            ),
            series=None
            if series is None
            else Series(
                tuple(
                    InstanceView(
                        number=one["number"],
                        header=_header(one["header"]),
                        pixels=None if one["pixels"] is None else self._load(one["pixels"]),
                        pixels_error=one["pixels_error"],
                    )
                    for one in series
                )
            ),
        )

    # --- the way back --------------------------------------------------------

    def write_findings(self, findings: Findings, inputs: Inputs) -> None:
        """Write what the model found in ``inputs``.

        Raises TypeError or ValueError, and writes nothing, when that is no valid Findings.
        """
        _check(findings, inputs)
        segments = []
        for number, segment in enumerate(findings.segments):
            name = f"mask-{number:03}.npy"
            np.save(self.path / name, np.packbits(segment.mask), allow_pickle=False)
            segments.append(
                {
                    "name": segment.name,
                    "label": segment.label,
                    "mask": name,
                    "shape": list(segment.mask.shape),
                    "category": _from_code(segment.category),
                    "type": _from_code(segment.type),
                    "laterality": _from_code(segment.laterality),
                    "measurements": [_from_measurement(one) for one in segment.measurements],
                    "colour": [int(one) for one in segment.colour],
                }
            )
        self._write(
            RESULT,
            {
                "contract": CONTRACT,
                "findings": {
                    "segments": segments,
                    "measurements": [_from_measurement(one) for one in findings.measurements],
                    "evaluations": [_from_evaluation(one) for one in findings.evaluations],
                    "checks": [[one.name, bool(one.passed), one.reason] for one in findings.checks],
                    "summary": findings.summary,
                },
            },
        )

    def write_refusal(self, reason: str) -> None:
        """Write that the model refuses the input."""
        self._write(RESULT, {"contract": CONTRACT, "refused": reason})

    def read_result(self) -> Findings | str:
        """Read the findings, or the reason of a refusal.

        Raises FileNotFoundError when there is no result, ValueError when it is broken.
        """
        try:
            result = self._read(RESULT)
            if "refused" in result:
                return str(result["refused"])
            return self._findings(result["findings"])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"the result is not as agreed: {error}") from error

    def _findings(self, found: Mapping[str, Any]) -> Findings:
        return Findings(
            segments=tuple(self._segment(one) for one in found["segments"]),
            measurements=tuple(_measurement(one) for one in found["measurements"]),
            evaluations=tuple(
                Evaluation(_code(one["concept"]), one["text"] if "text" in one else _code(one["code"]))
                for one in found["evaluations"]
            ),
            checks=tuple(Check(str(one[0]), bool(one[1]), str(one[2])) for one in found["checks"]),
            summary=str(found["summary"]),
        )

    def _segment(self, one: Mapping[str, Any]) -> Segment:
        shape = tuple(int(n) for n in one["shape"])
        packed = self._load(one["mask"])
        bits = np.unpackbits(packed, count=math.prod(shape))
        red, green, blue = one["colour"]
        return Segment(
            name=one["name"],
            label=one["label"],
            mask=bits.view(np.bool_).reshape(shape),
            category=_code(one["category"]),
            type=_code(one["type"]),
            laterality=None if one["laterality"] is None else _code(one["laterality"]),
            measurements=tuple(_measurement(number) for number in one["measurements"]),
            colour=(red, green, blue),
        )

    # --- files ---------------------------------------------------------------

    def _save(self, array: NDArray[Any]) -> str:
        if isinstance(array, np.memmap) and array.filename is not None:
            path = Path(array.filename)
            if path.parent == self.path:
                array.flush()
                return path.name
        self._arrays += 1
        name = f"array-{self._arrays:05}.npy"
        np.save(self.path / name, array, allow_pickle=False)
        return name

    def _load(self, name: str) -> NDArray[Any]:
        if Path(name).name != name:
            raise ValueError(f"{name!r} is no name of a file in the folder")
        array: NDArray[Any] = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
        return array

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        unfinished = self.path / f"{name}.part"
        unfinished.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        unfinished.replace(self.path / name)

    def _read(self, name: str) -> dict[str, Any]:
        content = json.loads((self.path / name).read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("contract") != CONTRACT:
            raise ValueError(f"{name} does not follow contract {CONTRACT}")
        return content


def _header(raw: Mapping[str, Any]) -> dict[str, HeaderValue]:
    return {keyword: _as_tuple(value) for keyword, value in raw.items()}


def _as_tuple(value: Any) -> HeaderValue:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value


def _from_code(code: Code | None) -> list[str] | None:
    return None if code is None else [code.value, code.scheme, code.meaning]


def _code(raw: Any) -> Code:
    value, scheme, meaning = raw
    return Code(str(value), str(scheme), str(meaning))


def _from_measurement(one: Measurement) -> dict[str, Any]:
    return {
        "concept": _from_code(one.concept),
        "value": float(one.value),
        "unit": _from_code(one.unit),
        "derivation": _from_code(one.derivation),
        "method": _from_code(one.method),
    }


def _measurement(raw: Mapping[str, Any]) -> Measurement:
    return Measurement(
        concept=_code(raw["concept"]),
        value=float(raw["value"]),
        unit=_code(raw["unit"]),
        derivation=None if raw["derivation"] is None else _code(raw["derivation"]),
        method=None if raw["method"] is None else _code(raw["method"]),
    )


def _from_evaluation(one: Evaluation) -> dict[str, Any]:
    if isinstance(one.value, Code):
        return {"concept": _from_code(one.concept), "code": _from_code(one.value)}
    return {"concept": _from_code(one.concept), "text": str(one.value)}


def _check(findings: object, inputs: Inputs) -> None:
    """Refuse what is no Findings before anything of it is written."""
    if not isinstance(findings, Findings):
        raise TypeError(f"predict returned {type(findings).__name__} instead of Findings")
    names = [segment.name for segment in findings.segments]
    if len(set(names)) < len(names):
        raise ValueError("two segments have one name")
    for segment in findings.segments:
        if not isinstance(segment.mask, np.ndarray) or segment.mask.dtype != np.bool_:
            raise TypeError(f"the mask of {segment.name} is no array of bool")
        if inputs.volume is None:
            raise ValueError("a segment needs a volume, and the model was given a series")
        if segment.mask.shape != inputs.volume.voxels.shape:
            raise ValueError(
                f"the mask of {segment.name} has the shape {segment.mask.shape},"
                f" the volume {inputs.volume.voxels.shape}"
            )
    for one in (*findings.measurements, *(one for each in findings.segments for one in each.measurements)):
        if not math.isfinite(one.value):
            raise ValueError(f"{one.concept.meaning} is {one.value}")
