"""Who may command this array, whatever way a command comes."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from arrayd.origin import Origin


@dataclass(frozen=True, slots=True)
class Permission:
    """`initiators` None: those on the machine of the array that they are connected to. `arrays` are those whose
    commands, and whose hosts', are taken; `us` is this array's name."""

    us: str
    initiators: AbstractSet[str] | None
    arrays: AbstractSet[str]

    def refusal(self, origin: Origin) -> str | None:
        """Why `origin` may not command this array, or None if it may."""
        if origin.path and origin.path[-1] not in self.arrays:
            return f"array {origin.path[-1]} is not among commands.arrays"
        if origin.is_array:
            return None if origin.path or origin.name == self.us else f"array {origin.name} came by no link"
        if self.initiators is None:
            where = "not on this machine" if not origin.path else f"not on the machine of array {origin.path[0]}"
            return None if origin.local else f"initiator {origin.name} is {where}, and there are no commands.initiators"
        return None if origin.name in self.initiators else f"initiator {origin.name} is not among commands.initiators"
