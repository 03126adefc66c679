"""File descriptors: enough of them for all associations that may be there at the same time."""

from __future__ import annotations

import resource

from node.errors import ConfigurationError

# of one association: its socket, what wakes it, what it receives into or sends from, a reader of the index
_PER_ASSOCIATION = 4
# the database, the receive log, the workers, the analyses, associations that we request
_OF_THE_NODE = 256


def ensure(associations: int) -> None:
    """Raise the limit of this process where ``associations`` need it.

    Raises
    ------
    ConfigurationError
        The system allows fewer.
    """
    needed = _OF_THE_NODE + _PER_ASSOCIATION * associations
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _is_enough(soft, needed):
        return
    if not _is_enough(hard, needed):
        raise ConfigurationError(
            [
                f"[limits] associations: {associations} need {needed} file descriptors, the system allows "
                f"{hard}; set a lower number, or raise the limit (LimitNOFILE= of systemd, 'ulimit -Hn')"
            ]
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _is_enough(limit: int, needed: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= needed
