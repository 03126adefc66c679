"""Watches the files of TLS while the node runs: new ones that cannot be used, and those that end soon."""

from __future__ import annotations

import logging
import math

from node import alarms
from node.clock import Clock
from node.config.settings import Config
from node.wire import tls

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 3600.0


class TlsWatch:
    """Raises and clears the alarms ``tls-files`` and ``tls-expiry``."""

    def __init__(self) -> None:
        self._stamps: tuple[object, ...] = ()
        self._next_look = -math.inf
        self._told: list[str] = []

    def look(self, config: Config, clock: Clock) -> None:
        """Look at the files where they have changed, and every hour. Costs next to nothing otherwise."""
        files = [path for side in tls.sides(config) for _, _, path in side.files]
        if not files:
            return
        stamps, now = tls.stamps_of(files), clock.timestamp()
        if stamps == self._stamps and now < self._next_look:
            return
        self._stamps, self._next_look = stamps, now + _LOOK_SECONDS
        from node.wire import validity  # loads a library that only nodes with TLS need

        wrong, ending = tls.problems(config), validity.warnings(config, now)
        data_dir = config.node.data_dir
        for name, found in ((alarms.TLS_FILES, wrong), (alarms.TLS_EXPIRY, ending)):
            if found:
                alarms.raise_alarm(data_dir, name, "; ".join(found), now)
            else:
                alarms.clear_alarm(data_dir, name)
        for one in wrong:
            if one not in self._told:
                logger.error("a TLS file cannot be used", extra={"reason": one})
        for one in ending:
            if one not in self._told:
                logger.warning("a TLS file is not valid for long", extra={"reason": one})
        self._told = [*wrong, *ending]
