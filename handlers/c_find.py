"""Query SCP (PS3.4 section C.4.1)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from node.query import query
from node.query.answers import Answers
from node.status import CANCEL, PENDING, PENDING_KEY_UNSUPPORTED, SUCCESS
from node.wire.association import Request, Response
from node.wire.sop_classes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    PATIENT_STUDY_ONLY_FIND,
    STUDY_ROOT_FIND,
)

if TYPE_CHECKING:
    from node.services import Services

logger = logging.getLogger(__name__)

_MODELS: dict[str, query.Model] = {STUDY_ROOT_FIND: "study", PATIENT_STUDY_ONLY_FIND: "patient-study-only"}


def c_find(services: Services, request: Request) -> Iterator[Response]:
    """Answer a C-FIND-RQ: one pending response for each match, then Success, or Cancel when asked to stop.

    Raises
    ------
    IdentifierInvalid
        The Identifier does not fit the information model.
    MalformedDataSet, LimitExceeded
        It cannot be read.
    """
    model = _MODELS.get(request.context.abstract_syntax_uid, "patient")
    asked = query.parse_identifier(request.identifier(), model)
    pending = PENDING_KEY_UNSUPPORTED if asked.has_unsupported_keys else PENDING
    matches = 0
    final = SUCCESS
    answers = Answers(services.database, asked, ae_title=services.config.node.ae_title)
    for identifier in _identifiers(answers, request.context.transfer_syntax_uid):
        if request.is_cancelled():
            final = CANCEL
            break
        yield Response(pending, identifier=identifier)
        matches += 1
    logger.info(
        "query answered",
        extra={
            "association": request.association.number,
            "level": asked.level.value,
            "matches": matches,
            "status": f"{final:04X}",
        },
    )
    yield Response(final)


def _identifiers(answers: Answers, transfer_syntax_uid: str) -> Iterator[Dataset] | Iterator[bytes]:
    """Give the Identifiers of the matches, encoded already in the usual transfer syntaxes."""
    if transfer_syntax_uid in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        return answers.encoded(is_implicit_vr=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN)
    return answers.data_sets()
