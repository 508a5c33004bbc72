"""How a LUN is written in eight bytes (SAM-5, 4.7.6), as targets and initiators say it."""

from __future__ import annotations

PERIPHERAL_LUNS = 256


def encode_lun(number: int) -> int:
    """The 8-byte LUN of `number` as an integer: peripheral addressing to 255, flat space above (SAM-5, 4.7.6)."""
    if number < PERIPHERAL_LUNS:
        return number << 48
    return (0x4000 | number) << 48
