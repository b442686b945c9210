"""What a fault came to: one line for each, told together when the tests are over."""

import statistics
from dataclasses import dataclass, field

FAULT = "fault"
"""The name under which a test hands on a line."""
TOLD: list["Tally"] = []
"""The tallies of the test that runs, in the order in which they were held to account."""


@dataclass(slots=True)
class Tally:
    """The accounts of one fault.

    `operations` are what clients were told was accepted, or the outside received; `lost` and `doubled` say what was
    lost or came twice; `recovery` has, of each round in which Baton ceased to serve, the seconds until it served again.
    `also` is a figure that belongs to the fault, in words.
    """

    fault: str
    rounds: int = 0
    operations: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    also: str = ""

    def hold(self) -> None:
        """Have the line told; nothing may be lost or doubled."""
        TOLD.append(self)
        assert (self.lost, self.doubled) == ([], []), f"{self}\nlost: {self.lost}\ndoubled: {self.doubled}"

    def __str__(self) -> str:
        line = (
            f"{self.fault:<44} {self.rounds:>6,} {self.operations:>10,} {len(self.lost):>6,} {len(self.doubled):>8,}"
            f" {self._recovered():>16}"
        )
        return f"{line}  {self.also}".rstrip()

    def _recovered(self) -> str:
        if not self.recovery:
            return "-"
        middle, longest = statistics.median(self.recovery), max(self.recovery)
        return f"{middle:.1f} s" if len(self.recovery) == 1 else f"{middle:.1f} s ≤ {longest:.1f} s"


HEAD = f"{'fault':<44} {'rounds':>6} {'operations':>10} {'lost':>6} {'doubled':>8} {'served again in':>16}"
