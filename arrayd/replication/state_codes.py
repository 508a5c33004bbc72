"""The numbers of states on their way between two arrays."""

from arrayd.replication.statuses import State

STATE_CODES: dict[State, int] = {
    State.SMPL: 0,
    State.P_COPY: 1,
    State.P_PAIR: 2,
    State.P_PFUL: 3,
    State.P_PSUS: 4,
    State.P_PSUE: 5,
    State.P_PSUE_FENCED: 6,
    State.P_PFUS: 7,
    State.S_COPY: 16,
    State.S_PAIR: 17,
    State.S_PFUL: 18,
    State.S_SSUS: 19,
    State.S_SSUS_WRITABLE: 20,
    State.S_PSUE: 21,
    State.S_PFUS: 22,
    State.S_SSWS: 23,
}
STATES = {code: state for state, code in STATE_CODES.items()}
