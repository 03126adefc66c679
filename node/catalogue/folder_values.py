"""What one value of ``analysis.toml`` may be; each reader returns it or says plainly why not.

A reader takes what ``tomllib`` read. It raises ``ValueError`` whose text ends a sentence that begins
with the key (as in ``node/config/config_values.py``).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from models.types import Code
from node.catalogue.folder_tables import Post, Setting, Sliding, Step
from node.config.config_values import (
    Reader,
    choice,
    listed,
    name,
    number,
    several,
    shown,
    suggestion,
    text,
    whole,
)

_LEADS = {"R": "RL", "L": "RL", "A": "AP", "P": "AP", "S": "SI", "I": "SI"}
_STEPS = ("window", "clip", "percentile", "zscore", "minmax", "mean", "scale")
DTYPES = ("float32", "float16", "float64", "uint8", "int16", "int32", "int64")
#: What a UCUM code is called, where the file does not say.
UNIT_MEANINGS = {
    "mm": "millimeter", "cm": "centimeter", "mm2": "square millimeter", "cm2": "square centimeter",
    "ml": "milliliter", "mL": "milliliter", "mm3": "cubic millimeter", "cm3": "cubic centimeter",
    "[hnsf'U]": "Hounsfield unit", "%": "percent", "1": "no units", "a": "year", "ms": "millisecond",
    "s": "second", "deg": "degree", "mm2/s": "square millimeter per second", "g/ml{SUVbw}": "SUV body weight",
    "kg": "kilogram", "{ratio}": "ratio", "{counts}": "counts", "Bq/ml": "becquerels per milliliter",
}  # fmt: skip
_UNIT_SYMBOLS = {"[hnsf'U]": "HU", "1": "", "{ratio}": "", "{counts}": "counts", "mm2/s": "mm²/s"}


def unit_symbol(code: str) -> str:
    """Return what people write for a UCUM code; nothing for numbers without a unit."""
    return _UNIT_SYMBOLS.get(code, code)


def sha256(value: Any) -> str:
    """Read a SHA-256: 64 hexadecimal digits."""
    read = text(value).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", read):
        raise ValueError(f"expected a SHA-256, 64 hexadecimal digits, not {shown(value)}")
    return read


def path_inside(value: Any) -> str:
    """Read the path of a file in the folder, with ``/``; it may not lead out of it."""
    read = text(value)
    path = PurePosixPath(read)
    if path.is_absolute() or ".." in path.parts or "\\" in read or path.as_posix() != read or read == ".":
        raise ValueError(
            f"expected the path of a file in the folder, such as models/model.pt, not {shown(value)}"
        )
    return read


def identifier(value: Any) -> str:
    """Read a name by which other tables refer to something: letters, digits, ``-``, ``_`` and ``.``."""
    read = name(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\- ]*", read):
        raise ValueError(f"expected a name of letters, digits, '-', '_' and '.', not {shown(value)}")
    return read


def code(value: Any) -> Code:
    """Read a coded concept: ``{ value = …, scheme = …, meaning = … }`` (PS3.3 section 8.8)."""
    fields = table(value, ("value", "scheme", "meaning"), required=("value", "scheme", "meaning"))
    limits = {"value": 16, "scheme": 16, "meaning": 64}
    for key, most in limits.items():
        fields[key] = name(fields[key])
        if len(fields[key]) > most:
            raise ValueError(f"{key}: expected at most {most} characters, not {len(fields[key])}")
    return Code(fields["value"], fields["scheme"], fields["meaning"])


def unit(value: Any) -> Code:
    """Read a unit of UCUM: ``"ml"``, or a whole code where its meaning is to be another."""
    if isinstance(value, dict):
        return code(value)
    read = name(value)
    if len(read) > 16:
        raise ValueError(f"expected at most 16 characters, not {len(read)}")
    return Code(read, "UCUM", UNIT_MEANINGS.get(read, read))


def colour(value: Any) -> tuple[int, ...]:
    """Read ``[red, green, blue]``, each from 0 to 255."""
    return list_of(whole(0, 255), 3)(value)


def setting(value: Any) -> Setting:
    """Read a number, or ``"$NAME"`` for the value of a parameter."""
    if isinstance(value, str) and re.fullmatch(r"\$\S+", value):
        return value
    try:
        return finite(value)
    except ValueError:
        raise ValueError(f'expected a number or "$PARAMETER", not {shown(value)}') from None


def finite(value: Any) -> float:
    """Read any number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
        raise ValueError(f"expected a number, not {shown(value)}")
    return float(value)


def factor(value: Any) -> float:
    """Read a number by which values are multiplied: with 0 they would all be one."""
    read = finite(value)
    if read == 0:
        raise ValueError("expected a factor other than 0, which would make all values the same")
    return read


def list_of(one: Reader, count: int | None = None) -> Reader:
    """Read a list of ``count`` values (any number of them if None); the same may come twice."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value or (count is not None and len(value) != count):
            how_many = "values" if count is None else f"{count} values"
            told = shown(value)
            if isinstance(value, list):
                told = f"a list of {len(value)}" if value else "an empty list"
            raise ValueError(f"expected a list of {how_many} in square brackets, not {told}")
        return tuple(one(element) for element in value)

    return read


def one_or_several(one: Reader, what: str) -> Reader:
    """Read a value or a list of them, as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, list):
            return tuple(several(one, what)(value))
        return (one(value),)

    return read


def table(value: Any, keys: tuple[str, ...], *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a table within a value, whose keys are among ``keys``."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a table in braces with {listed(keys)}, not {shown(value)}")
    for key in value:
        if key not in keys:
            raise ValueError(f"unknown key '{key}'{suggestion(key, keys)}")
    for key in required:
        if key not in value:
            raise ValueError(f"'{key}' is missing")
    return dict(value)


def orientation(value: Any) -> str:
    """Read where the three axes of an array lead, such as ``"RAS"``; ``"as is"`` is the empty text."""
    read = text(value)
    if read == "as is":
        return ""
    letters = read.upper()
    if len(letters) != 3 or len({_LEADS.get(one, "") for one in letters} - {""}) != 3:
        raise ValueError(f'expected "as is", or where the three axes lead, such as "RAS", not {shown(value)}')
    return letters


def layout(value: Any) -> str:
    """Read the order of the axes of a tensor, such as ``"NCDHW"``."""
    read = text(value).upper()
    if not set(read) <= set("NCDHW") or len(set(read)) != len(read) or not {"H", "W"} <= set(read):
        raise ValueError(
            'expected letters of N, C, D, H and W, each once, H and W among them, such as "NCDHW", '
            f"not {shown(value)}"
        )
    return read


def normalise(value: Any) -> tuple[Step, ...]:
    """Read one step, or a list of steps, each ``{ window = [a, b] }`` or one of the others."""
    steps = value if isinstance(value, list) else [value]
    return tuple(_step(one) for one in steps)


def _step(value: Any) -> Step:
    given = table(value, (*_STEPS, "std"))
    kinds = [key for key in given if key != "std"]
    if len(kinds) != 1 or ("std" in given) != ("mean" in given):
        raise ValueError(f"expected one of {', '.join(_STEPS)} (mean with std), not {shown(value)}")
    kind = kinds[0]
    argument = given[kind]
    if kind in ("window", "clip", "percentile"):
        low, high = list_of(finite, 2)(argument)
        if not low < high or (kind == "percentile" and not (low >= 0 and high <= 100)):
            raise ValueError(f"{kind}: expected two numbers, the lower first, not {argument}")
        return Step(kind, (low, high))
    if kind == "mean":
        mean = (
            one_or_several(finite, "number")(argument)
            if not isinstance(argument, list)
            else _numbers(argument)
        )
        std = _numbers(given["std"]) if isinstance(given["std"], list) else (finite(given["std"]),)
        if len(mean) != len(std) or any(one <= 0 for one in std):
            raise ValueError("mean and std: expected as many numbers of each, std above 0")
        return Step("mean", (*mean, *std))
    if kind == "scale":
        scale, offset = list_of(finite, 2)(argument)
        return Step("scale", (factor(scale), offset))
    if kind == "zscore" and argument == "nonzero":
        return Step("zscore", (1.0,))
    if argument is not True:
        more = ' or "nonzero"' if kind == "zscore" else ""
        raise ValueError(f"{kind}: expected true{more}, not {shown(argument)}")
    return Step(kind)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(list_of(finite)(value))


def sliding(value: Any) -> Sliding:
    """Read ``{ roi = [96, 96, 96], overlap = 0.25, mode = "gaussian" }``."""
    given = table(value, ("roi", "overlap", "mode"), required=("roi",))
    try:
        roi = list_of(whole(1))(given["roi"])
        overlap = number(0, 0.9)(given.get("overlap", 0.25))
        mode = choice("gaussian", "constant")(given.get("mode", "gaussian"))
    except ValueError as error:
        raise ValueError(f"roi, overlap or mode: {error}") from None
    if len(roi) not in (2, 3):
        raise ValueError(f"roi: expected 2 or 3 whole numbers, not {len(roi)}")
    return Sliding(roi, overlap, mode)


def post(value: Any) -> tuple[Post, ...]:
    """Read a list of ``"largest"``, ``"fill_holes"`` and ``{ min_ml = 0.5 }``."""
    if not isinstance(value, list):
        raise ValueError(f"expected a list in square brackets, not {shown(value)}")
    steps = []
    for one in value:
        if isinstance(one, dict):
            given = table(one, ("min_ml",), required=("min_ml",))
            steps.append(Post("min_ml", setting(given["min_ml"])))
        else:
            steps.append(Post(choice("largest", "fill_holes")(one)))
    return tuple(steps)
