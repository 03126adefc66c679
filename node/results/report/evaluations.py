"""Answers, checks and words as row 12 of TID 1500, Qualitative Evaluations (PS3.16)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from highdicom.sr import ContainerContentItem, ContentItem, ContentSequence

from models.types import Check, Findings
from node.results import concepts
from node.results.concepts import concept
from node.results.report.answers import answer, coded, text_item
from node.results.withholding import reasons


def evaluations(findings: Findings, remarks: Sequence[str]) -> list[ContainerContentItem]:
    """Return the container with the answers, the checks with their reasons, and words; none when empty.

    ``remarks`` are the node's own: why something was not made.
    """
    content: list[ContentItem] = [answer(one) for one in findings.evaluations]
    content += _checks(findings.checks)
    regions = (findings.segments, findings.marks, findings.measurements)
    if not (content or any(regions) or findings.images or findings.transforms):
        content.append(coded(concepts.NO_FINDING, concepts.NONE_REPORTED))
    content += [text_item(concepts.COMMENT, words) for words in (findings.summary, *remarks) if words]
    if not content:
        return []
    container = ContainerContentItem(
        name=concept(concepts.QUALITATIVE_EVALUATIONS), relationship_type="CONTAINS"
    )
    container.ContentSequence = ContentSequence(content)
    return [container]


def _checks(checks: Iterable[Check]) -> list[ContentItem]:
    content: list[ContentItem] = []
    for check in checks:
        outcome = concepts.SUCCEEDED if check.passed else concepts.FAILED
        content.append(coded(concepts.private_code(check.name), outcome))
        said = reasons([check]) or ([f"{check.name}: {check.reason}"] if check.reason else [])
        content += [text_item(concepts.COMMENT, words) for words in said]
    return content
