"""What each criterion of an agreement was worth: what became of the leads that had met it, and of those that had not.

Asked only of leads of which something is known to have become: `docs/reports.md` defines every figure.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime

from .agreement import Agreement
from .backtest import Worth, worths
from .judging import GOALS, Fate, Judge, Past, Ready


class CriteriaWorth:
    """Takes past leads one after another, in any order, and adds up those that became MQL at a time that counts."""

    def __init__(self, agreement: Agreement, counts: Callable[[datetime], bool]) -> None:
        self._judge, self._counts = Judge(agreement), counts
        self._by_met: Counter[tuple[int, Fate]] = Counter()

    def take(self, pasts: Iterable[Past]) -> None:
        """Find out when each would have become an MQL, and what it had met by then."""
        for past in pasts:
            if past.fate == Fate():
                continue
            ready = self._judge.first(past)
            if isinstance(ready, Ready) and self._counts(ready.at):
                self._by_met[self._judge.met(past, ready), past.fate] += 1

    @property
    def mqls(self) -> int:
        """How many MQLs that is."""
        return self._by_met.total()

    def worth(self) -> dict[str, list[Worth]]:
        """Return each criterion's worth against each goal, by the goal's name."""
        return {goal: worths(self._by_met, self._judge.criteria, goal) for goal in GOALS}
