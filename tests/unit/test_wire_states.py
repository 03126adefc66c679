"""The state machine of the upper layer, against PS3.8 table 9-10 and section 9.2.2."""

from __future__ import annotations

import itertools

import pytest

from node.wire.states import EVENT_OF_PDU, TABLE, Action, Event, NotPermitted, State, StateMachine

# Table 9-10 as the standard prints it: a row for each event, a column for each state.
TABLE_9_10 = """
         Sta1  Sta2  Sta3  Sta4  Sta5  Sta6  Sta7  Sta8  Sta9  Sta10  Sta11  Sta12  Sta13
Evt1     AE-1  -     -     -     -     -     -     -     -     -      -      -      -
Evt2     -     -     -     AE-2  -     -     -     -     -     -      -      -      -
Evt3     -     AA-1  AA-8  -     AE-3  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-8   AA-6
Evt4     -     AA-1  AA-8  -     AE-4  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-8   AA-6
Evt5     AE-5  -     -     -     -     -     -     -     -     -      -      -      -
Evt6     -     AE-6  AA-8  -     AA-8  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-8   AA-7
Evt7     -     -     AE-7  -     -     -     -     -     -     -      -      -      -
Evt8     -     -     AE-8  -     -     -     -     -     -     -      -      -      -
Evt9     -     -     -     -     -     DT-1  -     AR-7  -     -      -      -      -
Evt10    -     AA-1  AA-8  -     AA-8  DT-2  AR-6  AA-8  AA-8  AA-8   AA-8   AA-8   AA-6
Evt11    -     -     -     -     -     AR-1  -     -     -     -      -      -      -
Evt12    -     AA-1  AA-8  -     AA-8  AR-2  AR-8  AA-8  AA-8  AA-8   AA-8   AA-8   AA-6
Evt13    -     AA-1  AA-8  -     AA-8  AA-8  AR-3  AA-8  AA-8  AR-10  AR-3   AA-8   AA-6
Evt14    -     -     -     -     -     -     -     AR-4  AR-9  -      -      AR-4   -
Evt15    -     -     AA-1  AA-2  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1   AA-1   AA-1   -
Evt16    -     AA-2  AA-3  -     AA-3  AA-3  AA-3  AA-3  AA-3  AA-3   AA-3   AA-3   AA-2
Evt17    -     AA-5  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4   AA-4   AA-4   AR-5
Evt18    -     AA-2  -     -     -     -     -     -     -     -      -      -      AA-2
Evt19    -     AA-1  AA-8  -     AA-8  AA-8  AA-8  AA-8  AA-8  AA-8   AA-8   AA-8   AA-7
"""
# Tables 9-6 to 9-9: the next state of each action; the second one where there is a choice.
NEXT_STATES = """
AE-1 4  AE-2 5  AE-3 6  AE-4 1  AE-5 2  AE-6 3/13  AE-7 6  AE-8 13  DT-1 6  DT-2 6
AR-1 7  AR-2 8  AR-3 1  AR-4 13  AR-5 1  AR-6 7  AR-7 8  AR-8 9/10  AR-9 11  AR-10 12
AA-1 13  AA-2 1  AA-3 1  AA-4 1  AA-5 1  AA-6 13  AA-7 13  AA-8 13
"""


def cells() -> dict[tuple[int, int], str]:
    rows = [line.split() for line in TABLE_9_10.strip().splitlines()[1:]]
    return {
        (int(event.removeprefix("Evt")), state): action
        for event, *actions in rows
        for state, action in enumerate(actions, 1)
    }


def next_states() -> dict[str, list[int]]:
    words = NEXT_STATES.split()
    return {
        label: [int(state) for state in states.split("/")]
        for label, states in zip(words[::2], words[1::2], strict=True)
    }


def machine_in(state: int, *, is_requestor: bool = True) -> StateMachine:
    machine = StateMachine(is_requestor=is_requestor)
    machine.state = State(state)
    return machine


@pytest.mark.parametrize(("event", "state"), list(itertools.product(range(1, 20), range(1, 14))))
@pytest.mark.parametrize("is_first_choice", [True, False])
def test_each_cell_is_that_of_table_9_10(event: int, state: int, is_first_choice: bool) -> None:
    """Each event calls in each state for the action that table 9-10 names, and leads where it says."""
    expected = cells()[event, state]
    machine = machine_in(state, is_requestor=is_first_choice)
    assert machine.permits(Event(event)) is (expected != "-")
    if expected == "-":
        with pytest.raises(NotPermitted, match=f"Evt{event}.*Sta{state}"):
            machine.on(Event(event))
        assert machine.state == state
        return
    assert machine.on(Event(event), is_acceptable=is_first_choice).label == expected
    following = next_states()[expected]
    assert machine.state == following[0 if is_first_choice else -1]
    assert machine.takes_data is (machine.state in (6, 7))


def test_the_table_has_no_row_nor_action_beyond_the_standards() -> None:
    """Every event has its row, and every action its place in the table."""
    assert len(cells()) == 19 * 13
    assert sorted(TABLE) == list(range(1, 20))
    assert {action.label for action in Action} == set(next_states())
    used = {action for row in TABLE.values() for action in row.values()}
    assert used == set(Action)


def test_each_pdu_type_is_the_event_of_its_name() -> None:
    """The types of PS3.8 section 9.3 are the events of table 9-10 that name them."""
    assert EVENT_OF_PDU == {1: 6, 2: 3, 3: 4, 4: 10, 5: 12, 6: 13, 7: 16}
