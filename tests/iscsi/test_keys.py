"""The text keys: each negotiates by its rule (RFC 7143, sections 6.1, 6.2 and 13)."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayd.iscsi.keys import (
    DECLARED,
    FIRST_BURST_BYTES,
    IRRELEVANT,
    KEY_BYTES_MAX,
    KEYS,
    MAX_BURST_BYTES,
    NOT_UNDERSTOOD,
    PAIRS_MAX,
    REFUSALS,
    REJECT,
    VALUE_BYTES_MAX,
    Key,
    Kind,
    Negotiation,
    Phase,
    Scope,
    Sender,
    Use,
    format_pairs,
    format_value,
    parse_binary,
    parse_boolean,
    parse_number,
    parse_pairs,
    result,
)
from arrayd.iscsi.pdu import ProtocolError

NUMBERS = [key for key in KEYS.values() if key.kind in (Kind.MINIMUM, Kind.MAXIMUM, Kind.NUMBER)]
BOOLEANS = [key for key in KEYS.values() if key.kind in (Kind.AND, Kind.OR)]
LISTS = [key for key in KEYS.values() if key.kind is Kind.LIST]

# Use, senders, scope, default and range as section 13 gives them.
SECTION_13 = """
    HeaderDigest             IO   both      CO None
    DataDigest               IO   both      CO None
    MaxConnections           LO   both      SW 1      1..65535
    SendTargets              FFPO initiator SW -
    TargetName               IO   both      SW -
    InitiatorName            IO   initiator SW -
    TargetAlias              ALL  target    SW -
    InitiatorAlias           ALL  initiator SW -
    TargetAddress            ALL  target    SW -
    TargetPortalGroupTag     IO   target    SW -      0..65535
    InitialR2T               LO   both      SW Yes
    ImmediateData            LO   both      SW Yes
    MaxRecvDataSegmentLength ALL  both      CO 8192   512..16777215
    MaxBurstLength           LO   both      SW 262144 512..16777215
    FirstBurstLength         LO   both      SW 65536  512..16777215
    DefaultTime2Wait         LO   both      SW 2      0..3600
    DefaultTime2Retain       LO   both      SW 20     0..3600
    MaxOutstandingR2T        LO   both      SW 1      1..65535
    DataPDUInOrder           LO   both      SW Yes
    DataSequenceInOrder      LO   both      SW Yes
    ErrorRecoveryLevel       LO   both      SW 0      0..2
    SessionType              LO   initiator SW Normal
    TaskReporting            LO   both      SW RFC3720
    iSCSIProtocolLevel       LO   both      SW 1      0..31
"""
SENDERS = {"both": Sender.BOTH, "initiator": Sender.INITIATOR, "target": Sender.TARGET}


@pytest.mark.parametrize("line", SECTION_13.strip().splitlines(), ids=lambda line: line.split()[0])
def test_the_table_is_the_standards(line: str) -> None:
    name, use, senders, scope, default, *numbers = line.split()
    key = KEYS[name]
    assert (key.use, key.senders, key.scope) == (Use(use), SENDERS[senders], Scope(scope))
    assert default in ("-", format_value(key.default if key.default is not None else ""))
    assert [f"{key.low}..{key.high}"] == (numbers or ["0..0"])


def answers(pairs: list[tuple[str, str]], phase: Phase = Phase.OPERATIONAL) -> list[tuple[str, str]]:
    return Negotiation().answer(pairs, phase)


# -- text --------------------------------------------------------------------------------------------------------------


def test_pairs_are_separated_by_nul() -> None:
    assert parse_pairs(b"A=1\0B=x=y\0C=\0") == [("A", "1"), ("B", "x=y"), ("C", "")]
    assert parse_pairs(b"") == []
    assert parse_pairs(b"A=1\0\0\0") == [("A", "1")]
    assert format_pairs([("A", "1"), ("B", "")]) == b"A=1\0B=\0"


@pytest.mark.parametrize(
    "text",
    [
        b"A=1",
        b"A\0",
        b"=1\0",
        b"a=1\0",
        b"A b=1\0",
        b"A=\xff\0",
        b"A" * (KEY_BYTES_MAX + 1) + b"=1\0",
        b"A=" + b"x" * (VALUE_BYTES_MAX + KEY_BYTES_MAX) + b"\0",
        b"A=1\0" * (PAIRS_MAX + 1),
    ],
)
def test_text_that_is_none(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_pairs(text)


def test_the_longest_text_that_is_allowed() -> None:
    assert len(parse_pairs(b"A=1\0" * PAIRS_MAX)) == PAIRS_MAX
    name, value = "A" * KEY_BYTES_MAX, "x" * VALUE_BYTES_MAX
    assert parse_pairs(f"{name}={value}\0".encode()) == [(name, value)]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("65535", 65535),
        ("0x10", 16),
        ("0XfF", 255),
        (str(2**64 - 1), 2**64 - 1),
        ("0xffffffffffffffff", 2**64 - 1),
    ],
)
def test_numbers(text: str, number: int) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "010", "1 ", "1e3", "0x", "0xg", "1_000", str(2**64), "0x1" + "0" * 16, "\u0661", "9" * 5000],
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError):
        parse_number(text)


@given(st.binary(min_size=1, max_size=1100))
def test_binary_in_each_encoding(value: bytes) -> None:
    assert parse_binary("0x" + value.hex()) == value
    assert parse_binary("0X" + value.hex().upper()) == value
    assert parse_binary("0b" + base64.b64encode(value).decode()) == value


def test_binary_of_an_odd_digit_and_in_decimal() -> None:
    assert parse_binary("0xabc") == b"\x0a\xbc"
    assert parse_binary("258") == b"\x01\x02"
    assert parse_binary("0") == b"\0"


@pytest.mark.parametrize("text", ["", "0x", "0xzz", "0b", "0bA", "0b=A==", "abc", "0x 12"])
def test_what_is_not_binary(text: str) -> None:
    with pytest.raises(ValueError):
        parse_binary(text)


def test_booleans_are_case_sensitive() -> None:
    assert [parse_boolean(text) for text in ("Yes", "No")] == [True, False]
    with pytest.raises(ValueError):
        parse_boolean("yes")


# -- the rules ---------------------------------------------------------------------------------------------------------


def rule(key: Key, offered: int | bool, other: int | bool) -> int | bool:
    """The result function of section 13, by its words."""
    if key.kind is Kind.AND:
        return offered and other
    if key.kind is Kind.OR:
        return offered or other
    if key.kind is Kind.MINIMUM:
        return offered if offered < other else other
    if key.kind is Kind.MAXIMUM:
        return offered if offered > other else other
    return offered


@given(st.sampled_from(NUMBERS), st.data())
def test_a_number_comes_out_by_its_rule(key: Key, data: st.DataObject) -> None:
    offered = data.draw(st.integers(key.low, key.high))
    ours = key.offer if isinstance(key.offer, int) else offered
    agreed = result(key, data.draw(st.sampled_from([str(offered), hex(offered)])))
    assert agreed == rule(key, offered, ours)
    # The initiator, applying the same rule to its offer and our answer, comes to the same.
    if key.kind is not Kind.NUMBER:
        assert rule(key, offered, int(agreed)) == agreed


@given(st.sampled_from(NUMBERS), st.integers(0, 2**64))
def test_a_number_out_of_range_is_not_admissible(key: Key, number: int) -> None:
    if key.low <= number <= key.high:
        number += key.high + 1
    with pytest.raises(ValueError):
        result(key, str(number))


@given(st.sampled_from(BOOLEANS), st.booleans())
def test_a_boolean_comes_out_by_its_rule(key: Key, offered: bool) -> None:
    agreed = result(key, "Yes" if offered else "No")
    assert agreed == rule(key, offered, bool(key.offer))
    assert rule(key, offered, bool(agreed)) == agreed


@given(st.sampled_from(LISTS), st.data())
def test_the_first_of_a_list_that_is_supported(key: Key, data: st.DataObject) -> None:
    offered = data.draw(st.lists(st.sampled_from([*key.choices, "X-other", "none", ""]), min_size=1))
    supported = [value for value in offered if value in key.choices]
    if supported:
        assert result(key, ",".join(offered)) == supported[0]
    else:
        with pytest.raises(ValueError):
            result(key, ",".join(offered))


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ("MaxConnections=8", "MaxConnections=1"),
        ("MaxBurstLength=16777215", f"MaxBurstLength={MAX_BURST_BYTES}"),
        ("MaxBurstLength=511", "MaxBurstLength=Reject"),
        ("ErrorRecoveryLevel=2", "ErrorRecoveryLevel=0"),
        ("ErrorRecoveryLevel=3", "ErrorRecoveryLevel=Reject"),
        ("DefaultTime2Wait=5", "DefaultTime2Wait=5"),
        ("DefaultTime2Retain=120", "DefaultTime2Retain=0"),
        ("MaxOutstandingR2T=1", "MaxOutstandingR2T=1"),
        ("MaxOutstandingR2T=65535", "MaxOutstandingR2T=8"),
        ("MaxOutstandingR2T=0", "MaxOutstandingR2T=Reject"),
        ("InitialR2T=No", "InitialR2T=No"),
        ("InitialR2T=Yes", "InitialR2T=Yes"),
        ("ImmediateData=Yes", "ImmediateData=Yes"),
        ("ImmediateData=No", "ImmediateData=No"),
        ("ImmediateData=yes", "ImmediateData=Reject"),
        ("DataPDUInOrder=No", "DataPDUInOrder=Yes"),
        ("DataSequenceInOrder=No", "DataSequenceInOrder=Yes"),
        ("HeaderDigest=CRC32C,None", "HeaderDigest=CRC32C"),
        ("HeaderDigest=None,CRC32C", "HeaderDigest=None"),
        ("DataDigest=X-sum,None", "DataDigest=None"),
        ("DataDigest=X-sum", "DataDigest=Reject"),
        ("TaskReporting=FastAbort,ResponseFence,RFC3720", "TaskReporting=ResponseFence"),
        ("iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1"),
        ("IFMarker=Yes", "IFMarker=No"),
        ("OFMarkInt=2048~65535", "OFMarkInt=Reject"),
        ("X-com.example.thing=1", f"X-com.example.thing={NOT_UNDERSTOOD}"),
        ("TargetAddress=1.2.3.4", "TargetAddress=Reject"),
        ("SendTargets=All", "SendTargets=Reject"),
        ("AuthMethod=None", "AuthMethod=Reject"),
    ],
)
def test_answers(offered: str, answer: str) -> None:
    assert format_pairs(answers(parse_pairs(f"{offered}\0".encode()))) == f"{answer}\0".encode()


def test_declarations_are_not_answered() -> None:
    negotiation = Negotiation()
    declared = [("MaxRecvDataSegmentLength", "65536"), ("InitiatorAlias", "my host"), ("InitiatorName", "iqn.a")]
    assert negotiation.answer(declared, Phase.OPERATIONAL) == []
    assert negotiation.value("MaxRecvDataSegmentLength", int) == 65536
    assert negotiation.value("InitiatorAlias", str) == "my host"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MaxRecvDataSegmentLength", "511"),
        ("MaxRecvDataSegmentLength", "16777216"),
        ("MaxRecvDataSegmentLength", "much"),
        ("InitiatorName", "iqn." + "x" * 220),
        ("InitiatorAlias", "a\nb"),
        ("InitiatorAlias", "\u00e9" * 128),
    ],
)
def test_a_declaration_that_cannot_be_ends_the_negotiation(name: str, value: str) -> None:
    with pytest.raises(ProtocolError, match=name):
        answers([(name, value)])


def test_a_refusal_of_what_the_target_declared_needs_no_answer() -> None:
    for refusal in REFUSALS:
        assert answers([("TargetPortalGroupTag", refusal), ("X-unknown", refusal)]) == []


def test_nothing_is_negotiated_twice() -> None:
    negotiation = Negotiation()
    negotiation.answer([("MaxBurstLength", "65536"), ("InitiatorName", "iqn.a")], Phase.OPERATIONAL)
    assert negotiation.answer([("InitiatorName", "iqn.a")], Phase.OPERATIONAL) == []
    for again in (("MaxBurstLength", "65536"), ("InitiatorName", "iqn.b")):
        with pytest.raises(ProtocolError, match="twice"):
            negotiation.answer([again], Phase.OPERATIONAL)


def test_operational_keys_wait_for_their_stage() -> None:
    offered = [("InitiatorName", "iqn.a"), ("MaxBurstLength", "65536")]
    assert answers(offered, Phase.SECURITY) == [("MaxBurstLength", REJECT)]


def test_only_some_keys_in_full_feature_phase() -> None:
    offered = [("MaxRecvDataSegmentLength", "4096"), ("MaxBurstLength", "65536"), ("InitiatorName", "iqn.a")]
    assert answers(offered, Phase.FULL_FEATURE) == [("MaxBurstLength", REJECT), ("InitiatorName", REJECT)]


def test_a_discovery_session_has_no_use_for_some_keys() -> None:
    offered = [("InitialR2T", "No"), ("HeaderDigest", "None"), ("SessionType", "Discovery")]
    assert answers(offered) == [("InitialR2T", IRRELEVANT), ("HeaderDigest", "None")]


def test_first_burst_is_no_longer_than_a_burst() -> None:
    assert answers([("FirstBurstLength", "131072"), ("MaxBurstLength", "65536")]) == [
        ("MaxBurstLength", "65536"),
        ("FirstBurstLength", "65536"),
    ]
    assert answers([("FirstBurstLength", "16777215"), ("MaxBurstLength", "16776192")])[1] == (
        "FirstBurstLength",
        str(FIRST_BURST_BYTES),
    )


def test_first_burst_is_irrelevant_when_nothing_is_unsolicited() -> None:
    offered = [("FirstBurstLength", "65536"), ("InitialR2T", "Yes"), ("ImmediateData", "No")]
    assert answers(offered)[-1] == ("FirstBurstLength", IRRELEVANT)


PAIRS = st.lists(
    st.tuples(
        st.sampled_from([*KEYS, "X-a", "Unknown"]),
        st.one_of(
            st.text(max_size=300),
            st.integers(0, 2**25).map(str),
            st.sampled_from(["Yes", "No", "None", "CRC32C,None", "Discovery", "Normal", *REFUSALS]),
        ),
    ),
    max_size=12,
)


@given(PAIRS, st.sampled_from(Phase))
def test_every_step_is_answered_or_ends_the_negotiation(pairs: list[tuple[str, str]], phase: Phase) -> None:
    negotiation = Negotiation()
    try:
        answered = negotiation.answer(pairs, phase)
    except ProtocolError:
        return
    offered = {name for name, _ in pairs}
    for name, value in answered:
        assert name in offered
        if value not in REFUSALS:
            key = KEYS[name]
            assert key.kind not in DECLARED
            # The answer is itself an admissible value, and is what was agreed.
            assert format_value(result(key, value)) == value == format_value(negotiation.agreed[name])


@given(st.binary(max_size=200))
def test_any_bytes_are_pairs_or_a_protocol_error(text: bytes) -> None:
    try:
        pairs = parse_pairs(text)
    except ProtocolError:
        return
    assert parse_pairs(format_pairs(pairs)) == pairs
