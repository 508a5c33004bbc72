"""The kinds of logical units there are, by peripheral device type (SPC-5, table 150)."""

DISK = 0x00
"""A block device: a volume."""
STORAGE_ARRAY_CONTROLLER = 0x0C
"""Stands at LUN 0 when no volume does."""
NO_DEVICE = 0x1F
"""Answers for LUNs that are not there."""

NOT_CONNECTED = 0x60
"""Peripheral qualifier 011b: no logical unit can be at this LUN."""


def peripheral(device_type: int) -> int:
    """Peripheral qualifier and device type, byte 0 of every INQUIRY answer (SPC-5, tables 148 and 149)."""
    return device_type | (NOT_CONNECTED if device_type == NO_DEVICE else 0)
