"""Volumes held against the order of a group's writes, by cases."""

import pytest

from arrayd.replication.writes import Range
from tests.simulation.prefixes import Given, Order
from tests.simulation.world import Violated

ZEROS = [bytes(2048)] * 2


def made(*blocks: tuple[int, int, int]) -> list[bytes]:
    """Two volumes with these: volume, block, byte."""
    volumes = [bytearray(2048), bytearray(2048)]
    for volume, block, byte in blocks:
        volumes[volume][block * 512 : (block + 1) * 512] = bytes([byte]) * 512
    return [bytes(each) for each in volumes]


@pytest.fixture
def order() -> Order:
    order = Order()
    order.begin(ZEROS)
    for number, (volume, block) in enumerate([(0, 0), (1, 0), (0, 0)]):
        order.was_given(number, Given(number + 1, volume, block * 512, 512, bytes([number + 1])))
    return order


@pytest.mark.parametrize(
    ("sequence", "blocks"), [(0, []), (1, [(0, 0, 1)]), (2, [(0, 0, 1), (1, 0, 2)]), (3, [(0, 0, 3), (1, 0, 2)])]
)
def test_volumes_are_the_writes_up_to_one(order: Order, sequence: int, blocks: list[tuple[int, int, int]]) -> None:
    order.check(sequence, made(*blocks), "here")
    with pytest.raises(Violated, match="differs in 1 blocks: 3"):
        order.check(sequence, made(*blocks, (1, 3, 9)), "here")


def test_a_position_that_is_none(order: Order) -> None:
    order.check(2, made((0, 0, 1), (1, 0, 2)), "here")
    with pytest.raises(Violated, match="4 is told"):
        order.check(4, made((0, 0, 3), (1, 0, 2)), "here")
    with pytest.raises(Violated, match="given once more"):
        order.was_given(1, Given(2, 0, 0, 512, b"x"))


def test_what_a_journal_lost_is_given_anew(order: Order) -> None:
    order.was_given(1, Given(2, 1, 512, 512, b"x"))
    order.check(2, made((0, 0, 1), (1, 1, ord("x"))), "here")


def test_what_was_given_while_it_began_is_taken_away_again() -> None:
    order = Order()
    order.was_given(0, Given(1, 0, 0, 512, b"n", before=b"o" * 512))
    order.begin(made((0, 0, ord("n"))))
    order.lost_power()
    order.begin(made((0, 0, ord("n")), (1, 2, 5)))
    order.check(0, made((0, 0, ord("o")), (1, 2, 5)), "here")
    order.lost_power()
    order.begin(ZEROS)
    order.check(1, made((0, 0, ord("n")), (1, 2, 5)), "here")


def test_p_vols_are_what_their_journal_has_but_for_what_is_told_to_differ(order: Order) -> None:
    order.check(1, made((0, 0, 1)), "here")
    order.check_led(2, made((0, 0, 1), (1, 0, 2)), [], "there")  # the third record was lost with the power
    order.check_led(2, made((0, 0, 3), (1, 0, 2)), [Range(0, 0, 512)], "there")
    with pytest.raises(Violated, match="there: not the writes up to 2: volume 0 differs in 1 blocks: 0"):
        order.check_led(2, made((0, 0, 3), (1, 0, 2)), [], "there")
    order.check(2, made((0, 0, 1), (1, 0, 2)), "here")
