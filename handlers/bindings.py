"""Start reading here: which function answers which request of the wire."""

from __future__ import annotations

from handlers.association import admit
from handlers.boundary import guarded
from handlers.c_echo import c_echo
from handlers.c_find import c_find
from handlers.c_get import c_get
from handlers.c_move import c_move
from handlers.c_store import c_store
from handlers.storage_commitment import n_action, n_event_report
from node.wire.server import Bindings

BINDINGS = Bindings(
    admit=admit,
    operations={
        "C-ECHO": guarded("C-ECHO", c_echo),
        "C-STORE": guarded("C-STORE", c_store),
        "C-FIND": guarded("C-FIND", c_find),
        "C-MOVE": guarded("C-MOVE", c_move),
        "C-GET": guarded("C-GET", c_get),
        "N-ACTION": guarded("N-ACTION", n_action),
        "N-EVENT-REPORT": guarded("N-EVENT-REPORT", n_event_report),
    },
)
