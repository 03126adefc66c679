"""Whether a ValueError is what a model means by it: "this input is unfit for me"."""

from __future__ import annotations

import dis
import os
import sys
from pathlib import Path
from types import CodeType, TracebackType

import models
import node

_RAISE = dis.opmap["RAISE_VARARGS"]


def is_refusal(error: ValueError, model: object, folder: Path | None) -> bool:
    """Whether the model's own code, or that of its runner, raised ``error`` by a statement.

    One that a library raises further in, or that comes of an operation on an array, is a mistake of the
    model, and no word on the input.

    Parameters
    ----------
    model
        what was loaded; code of its package is its own
    folder
        the model's, if it is one; all that lies in it is its own
    """
    place = error.__traceback__
    if place is None:
        return False
    while place.tb_next is not None:
        place = place.tb_next
    code = place.tb_frame.f_code
    return _is_raised(code, place) and _is_within(code.co_filename, _roots(model, folder))


def _is_raised(code: CodeType, place: TracebackType) -> bool:
    """Whether the last instruction that ran is a statement ``raise``."""
    return 0 <= place.tb_lasti < len(code.co_code) and code.co_code[place.tb_lasti] == _RAISE


def _roots(model: object, folder: Path | None) -> list[str]:
    """Files and folders of the model's own code."""
    roots = [*models.__path__, *node.__path__]
    if folder is not None:
        roots.append(str(folder))
    for kind in type(model).__mro__[:-1]:
        name = kind.__module__.partition(".")[0]
        package = sys.modules.get(name)
        # A package has folders, a module only its file.
        roots += getattr(package, "__path__", [getattr(package, "__file__", None) or ""])
    return [os.path.realpath(one) for one in roots if one]


def _is_within(file: str, roots: list[str]) -> bool:
    path = os.path.realpath(file)
    return any(path == root or path.startswith(root + os.sep) for root in roots)
