"""Figures as people read them."""

from __future__ import annotations

from benchmarks.figures import Verdict


def number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: list[float]) -> str:
    """The lowest and the highest."""
    return f"{number(min(values))} - {number(max(values))}"


def compared(verdict: Verdict) -> str:
    """What is held against the target."""
    target = verdict.target
    return f"{target.of} / {target.to}" if target.to else target.of


def limit(verdict: Verdict) -> str:
    """The target."""
    if verdict.target.limit is None:
        return ""
    return f"at {'most' if verdict.target.is_most else 'least'} {number(verdict.target.limit)}"


def said(verdict: Verdict) -> str:
    """Whether the target holds."""
    return {True: "holds", False: "does not hold", None: ""}[verdict.holds]
