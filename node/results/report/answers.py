"""Single answers as content items: a code or words, with the model's certainty of them."""

from __future__ import annotations

from highdicom.sr import CodeContentItem, ContentItem, ContentSequence, NumContentItem, TextContentItem

from models.types import Code, Evaluation
from node.results import concepts
from node.results.concepts import concept


def answer(evaluation: Evaluation) -> ContentItem:
    """Return an answer as a code or as words; the model's certainty is a number that is a property of it."""
    if isinstance(evaluation.value, Code):
        item: ContentItem = coded(evaluation.concept, evaluation.value)
    else:
        item = text_item(evaluation.concept, evaluation.value)
    if evaluation.probability is not None:
        certainty = NumContentItem(
            name=concept(concepts.CERTAINTY),
            value=percent(evaluation.probability),
            unit=concept(concepts.PERCENT),
            relationship_type="HAS PROPERTIES",
        )
        item.ContentSequence = ContentSequence([certainty])
    return item


def coded(name: Code, value: Code) -> CodeContentItem:
    """Return a CODE item."""
    return CodeContentItem(name=concept(name), value=concept(value), relationship_type="CONTAINS")


def text_item(name: Code, value: str) -> TextContentItem:
    """Return a TEXT item; the standard allows no empty one."""
    return TextContentItem(name=concept(name), value=value or "none", relationship_type="CONTAINS")


def percent(probability: float) -> float:
    """Return a probability in percent, without the digits that the multiplication makes up."""
    return float(f"{probability * 100:.10g}")
