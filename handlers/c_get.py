"""C-GET SCP: sends what was asked for back over the same association (PS3.4 section C.4.3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from handlers.sub_operations import SubOperations, instances_asked_for
from node.services import Services
from node.wire.association import Request, Response


def c_get(services: Services, request: Request) -> Iterator[Response]:
    """Answer a C-GET-RQ: a pending response after each sub-operation, then the final one.

    An instance goes through a context in which the requestor took the SCP role (PS3.7 section
    D.3.3.4); where there is none that fits, that sub-operation fails and the others go on.
    """
    instances = instances_asked_for(services, request)
    sub_operations = SubOperations(services, request, len(instances))
    yield from sub_operations.perform(request.association, deque(instances))
    yield sub_operations.final()
