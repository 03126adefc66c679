"""Verification SCP (PS3.4 annex A): the node is here and speaks DICOM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from node.status import SUCCESS
from node.wire.association import Request, Response

if TYPE_CHECKING:
    from node.services import Services


def c_echo(services: Services, request: Request) -> Iterator[Response]:  # noqa: ARG001
    """Answer a C-ECHO-RQ with Success."""
    yield Response(SUCCESS)
