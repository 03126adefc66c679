"""The state machine of the upper layer: PS3.8 section 9.2, with table 9-10 as a table.

Nothing is done here: ``on`` says which action an event calls for, and goes on to the next state. What
an action does is ``upper_layer.py``'s.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import Enum, IntEnum

from node.wire import pdu


class State(IntEnum):
    """The states of PS3.8 section 9.2.1."""

    STA1 = 1
    """Idle: there is no association."""
    STA2 = 2
    """The transport connection is open; A-ASSOCIATE-RQ is awaited."""
    STA3 = 3
    """The local user decides on the A-ASSOCIATE-RQ."""
    STA4 = 4
    """The transport connection is being opened."""
    STA5 = 5
    """A-ASSOCIATE-AC or -RJ is awaited."""
    STA6 = 6
    """The association is established: data transfer."""
    STA7 = 7
    """A-RELEASE-RP is awaited."""
    STA8 = 8
    """The peer wants to release; the local user has not responded yet."""
    STA9 = 9
    """Release collision, association-requestor; the local user has not responded yet."""
    STA10 = 10
    """Release collision, association-acceptor; A-RELEASE-RP is awaited."""
    STA11 = 11
    """Release collision, association-requestor; A-RELEASE-RP is awaited."""
    STA12 = 12
    """Release collision, association-acceptor; the local user has not responded yet."""
    STA13 = 13
    """The association is no more; the peer is to close the transport connection."""


class Event(IntEnum):
    """The events of PS3.8 table 9-10, by their number there."""

    ASSOCIATE_REQUEST = 1
    TRANSPORT_CONFIRM = 2
    ASSOCIATE_AC_PDU = 3
    ASSOCIATE_RJ_PDU = 4
    TRANSPORT_INDICATION = 5
    ASSOCIATE_RQ_PDU = 6
    ACCEPT_RESPONSE = 7
    REJECT_RESPONSE = 8
    P_DATA_REQUEST = 9
    P_DATA_TF_PDU = 10
    RELEASE_REQUEST = 11
    RELEASE_RQ_PDU = 12
    RELEASE_RP_PDU = 13
    RELEASE_RESPONSE = 14
    ABORT_REQUEST = 15
    ABORT_PDU = 16
    TRANSPORT_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


class Action(Enum):
    """The actions of PS3.8 section 9.2.2, and the state that follows each.

    ``AE_6`` and ``AR_8`` have two: the second is taken for a request that the service provider does
    not accept, and by the association-acceptor.
    """

    AE_1 = "AE-1", State.STA4
    AE_2 = "AE-2", State.STA5
    AE_3 = "AE-3", State.STA6
    AE_4 = "AE-4", State.STA1
    AE_5 = "AE-5", State.STA2
    AE_6 = "AE-6", State.STA3, State.STA13
    AE_7 = "AE-7", State.STA6
    AE_8 = "AE-8", State.STA13
    DT_1 = "DT-1", State.STA6
    DT_2 = "DT-2", State.STA6
    AR_1 = "AR-1", State.STA7
    AR_2 = "AR-2", State.STA8
    AR_3 = "AR-3", State.STA1
    AR_4 = "AR-4", State.STA13
    AR_5 = "AR-5", State.STA1
    AR_6 = "AR-6", State.STA7
    AR_7 = "AR-7", State.STA8
    AR_8 = "AR-8", State.STA9, State.STA10
    AR_9 = "AR-9", State.STA11
    AR_10 = "AR-10", State.STA12
    AA_1 = "AA-1", State.STA13
    AA_2 = "AA-2", State.STA1
    AA_3 = "AA-3", State.STA1
    AA_4 = "AA-4", State.STA1
    AA_5 = "AA-5", State.STA1
    AA_6 = "AA-6", State.STA13
    AA_7 = "AA-7", State.STA13
    AA_8 = "AA-8", State.STA13

    def __init__(self, label: str, following: State, otherwise: State | None = None) -> None:
        self.label = label
        self.following = following
        self.otherwise = otherwise


#: The event that each PDU is when it comes in; a PDU of another type is ``INVALID_PDU``.
EVENT_OF_PDU: Mapping[int, Event] = {
    pdu.A_ASSOCIATE_RQ: Event.ASSOCIATE_RQ_PDU,
    pdu.A_ASSOCIATE_AC: Event.ASSOCIATE_AC_PDU,
    pdu.A_ASSOCIATE_RJ: Event.ASSOCIATE_RJ_PDU,
    pdu.P_DATA_TF: Event.P_DATA_TF_PDU,
    pdu.A_RELEASE_RQ: Event.RELEASE_RQ_PDU,
    pdu.A_RELEASE_RP: Event.RELEASE_RP_PDU,
    pdu.A_ABORT: Event.ABORT_PDU,
}


def _row(**cells: str) -> dict[State, Action]:
    """Read one row: ``sta6_12="AA_8"`` stands for the states 6 to 12."""
    row = {}
    for states, action in cells.items():
        first, _, last = states.removeprefix("sta").partition("_")
        for number in range(int(first), int(last or first) + 1):
            row[State(number)] = Action[action]
    return row


#: PS3.8 table 9-10, a row for each event; what is not there cannot happen, or may not be asked for.
TABLE: Mapping[Event, Mapping[State, Action]] = {
    Event.ASSOCIATE_REQUEST: _row(sta1="AE_1"),
    Event.TRANSPORT_CONFIRM: _row(sta4="AE_2"),
    Event.ASSOCIATE_AC_PDU: _row(sta2="AA_1", sta3="AA_8", sta5="AE_3", sta6_12="AA_8", sta13="AA_6"),
    Event.ASSOCIATE_RJ_PDU: _row(sta2="AA_1", sta3="AA_8", sta5="AE_4", sta6_12="AA_8", sta13="AA_6"),
    Event.TRANSPORT_INDICATION: _row(sta1="AE_5"),
    Event.ASSOCIATE_RQ_PDU: _row(sta2="AE_6", sta3="AA_8", sta5_12="AA_8", sta13="AA_7"),
    Event.ACCEPT_RESPONSE: _row(sta3="AE_7"),
    Event.REJECT_RESPONSE: _row(sta3="AE_8"),
    Event.P_DATA_REQUEST: _row(sta6="DT_1", sta8="AR_7"),
    Event.P_DATA_TF_PDU: _row(
        sta2="AA_1", sta3="AA_8", sta5="AA_8", sta6="DT_2", sta7="AR_6", sta8_12="AA_8", sta13="AA_6"
    ),
    Event.RELEASE_REQUEST: _row(sta6="AR_1"),
    Event.RELEASE_RQ_PDU: _row(
        sta2="AA_1", sta3="AA_8", sta5="AA_8", sta6="AR_2", sta7="AR_8", sta8_12="AA_8", sta13="AA_6"
    ),
    Event.RELEASE_RP_PDU: _row(
        sta2="AA_1",
        sta3="AA_8",
        sta5_6="AA_8",
        sta7="AR_3",
        sta8_9="AA_8",
        sta10="AR_10",
        sta11="AR_3",
        sta12="AA_8",
        sta13="AA_6",
    ),
    Event.RELEASE_RESPONSE: _row(sta8="AR_4", sta9="AR_9", sta12="AR_4"),
    Event.ABORT_REQUEST: _row(sta3="AA_1", sta4="AA_2", sta5_12="AA_1"),
    Event.ABORT_PDU: _row(sta2="AA_2", sta3="AA_3", sta5_12="AA_3", sta13="AA_2"),
    Event.TRANSPORT_CLOSED: _row(sta2="AA_5", sta3_12="AA_4", sta13="AR_5"),
    Event.ARTIM_EXPIRED: _row(sta2="AA_2", sta13="AA_2"),
    Event.INVALID_PDU: _row(sta2="AA_1", sta3="AA_8", sta5_12="AA_8", sta13="AA_7"),
}


class NotPermitted(RuntimeError):
    """The event has no cell in table 9-10 for the present state."""


class StateMachine:
    """The present state of one association; any thread may use it.

    Attributes
    ----------
    state
        The present state.
    takes_data
        Whether a P-DATA-TF PDU is delivered in it. The receiving side looks at this alone for each
        of them, and asks ``on`` for every other PDU.
    """

    def __init__(self, *, is_requestor: bool) -> None:
        self._is_requestor = is_requestor
        self._lock = threading.Lock()
        self.state = State.STA1
        self.takes_data = False

    def permits(self, event: Event) -> bool:
        """Whether table 9-10 has a cell for ``event`` in the present state."""
        return self.state in TABLE[event]

    def on(self, event: Event, *, is_acceptable: bool = True) -> Action:
        """Take ``event``: go on to the next state, and return the action to perform.

        ``is_acceptable`` is for an A-ASSOCIATE-RQ: whether the service provider accepts it (AE-6).

        Raises
        ------
        NotPermitted
            The event cannot happen in the present state, which is left as it is.
        """
        with self._lock:
            action = TABLE[event].get(self.state)
            if action is None:
                raise NotPermitted(f"{event.name} (Evt{event:d}) in Sta{self.state:d}")
            following = action.following
            if action.otherwise is not None:
                is_first = is_acceptable if action is Action.AE_6 else self._is_requestor
                following = following if is_first else action.otherwise
            self.state = following
            self.takes_data = TABLE[Event.P_DATA_TF_PDU].get(following) in (Action.DT_2, Action.AR_6)
            return action
