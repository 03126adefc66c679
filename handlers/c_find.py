"""Query SCP (PS3.4 section C.4.1)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from node import query
from node.status import CANCEL, PENDING, PENDING_KEY_UNSUPPORTED, SUCCESS
from node.wire.association import Request, Response
from node.wire.sop_classes import PATIENT_STUDY_ONLY_FIND, STUDY_ROOT_FIND

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
    with services.database.read() as connection:
        for identifier in query.find(connection, asked, ae_title=services.config.node.ae_title):
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
