"""How commands are to be sent: by which method, from which array on, and for how long they are waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from arrayd.commands.messages import TIME_LIMIT_MS_MAX
from arrayd.commands.messages import Method as Forwarding

Method = Literal["command-device", "addressed"]
Addresses = Literal["as-configured", "delete", "keep", "shortest"]

TIMEOUT_S = 30.0
"""How long a command may take, unless somebody says otherwise."""

FORWARDING: dict[Addresses, Forwarding] = {
    "as-configured": Forwarding.AS_CONFIGURED,
    "delete": Forwarding.DELETE,
    "keep": Forwarding.KEEP,
    "shortest": Forwarding.SHORTEST,
}
"""What the arrays on a path do with addresses, and its number in a message."""


@dataclass(frozen=True, slots=True)
class Way:
    """How commands are sent. Raises ValueError for what does not go together."""

    method: Method | None = None
    """None: by command device where its LUN is known, else addressed."""
    at: str | None = None
    """The array to ask; None: as the path table says."""
    addresses: Addresses = "as-configured"
    """What the arrays on the path do with addresses; all but as-configured is for addressed commands alone."""
    timeout_s: float = TIMEOUT_S
    """How long a command may take, its retries included."""

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in get_args(Method):
            raise ValueError(f"method {self.method}: command-device or addressed")
        if self.addresses not in FORWARDING:
            raise ValueError(f"addresses {self.addresses}: {', '.join(FORWARDING)}")
        if not 0 < self.timeout_s <= TIME_LIMIT_MS_MAX / 1000:
            raise ValueError(f"a timeout of {self.timeout_s:g} s: more than 0 and at most {TIME_LIMIT_MS_MAX // 1000}")
        if self.method == "command-device" and self.addresses != "as-configured":
            raise ValueError(
                f"addresses are of the method addressed: {self.addresses} has no meaning for a command device"
            )

    @property
    def addressed(self) -> bool:
        """Whether a command device is out of the question."""
        return self.method == "addressed" or self.addresses != "as-configured"


DEFAULT = Way()
