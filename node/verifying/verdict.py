"""What verifying an instance came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """``problem`` is empty for a good instance; where not ``is_known``, nobody can tell for now."""

    problem: str
    is_known: bool = True
