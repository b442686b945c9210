"""The clocks of the agreement, run in the business time of whoever has the lead: start, move, hand over, escalate.

A clock keeps what it is counted from (`since`) and how much business time is left from there (`within`), so that it
can be computed again when a calendar changes; `spent` is the ledger of what earlier owners used.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Literal

from .agreement import Agreement, ReassignRung, Sla
from .calendar import WorkingTime
from .lead import Clock
from .stages import ClockKind

Rung = Literal["remind", "reassign", "manager", "queue"]
NOBODY: Final = "queue"
"""In whose name business time is booked while a lead has no owner."""


def started(kind: ClockKind, agreement: Agreement, time: WorkingTime, at: datetime) -> Clock:
    """Return the clock of that kind as it begins to run at `at`, in its owner's business time."""
    within = _within(kind, agreement)
    clock = Clock(kind=kind, started_at=at, since=at, within=within, due_at=time.due(at, within) if within else at)
    return _with_reminders(clock, agreement, time, at)


def recomputed(clock: Clock, agreement: Agreement, time: WorkingTime, at: datetime) -> Clock:
    """Return the clock as the owner's calendar has it now; one that ran out stays, and so does its next rung."""
    if clock.within is None or clock.breached_at:
        return clock
    moved = clock.model_copy(update={"due_at": time.due(clock.counted_from, clock.within)})
    return _with_reminders(moved, agreement, time, at, most=len(clock.reminders))


def handed_over(
    clock: Clock, agreement: Agreement, before: tuple[str | None, WorkingTime], after: WorkingTime, at: datetime
) -> Clock:
    """Return the clock for the next owner: what the one before used is booked, what is left is theirs.

    `before` is that owner (None: the queue) and their business time. A clock whose breach was noted starts anew: it
    has no time left, and whoever gets the lead needs some. Whole seconds change hands, so that nothing is lost to
    rounding; a change of the calendar that the clock has not heard of yet counts first.
    """
    if clock.breached_at:
        return started(clock.kind, agreement, after, at).model_copy(update={"rung": clock.rung})
    owner, time = before
    due = recomputed(clock, agreement, time, at).due_at
    used = _seconds(time.between(clock.counted_from, at))
    left = max(_seconds(time.between(clock.counted_from, due)) - used, 0)
    book = clock.spent | {owner or NOBODY: clock.spent.get(owner or NOBODY, 0) + used}
    due_at = after.add(at, timedelta(seconds=left)) if left else min(due, at)
    within = f"{left}s" if left else None
    moved = clock.model_copy(update={"since": at, "within": within, "spent": book, "due_at": due_at})
    return _with_reminders(moved, agreement, after, at, most=len(clock.reminders))


def stopped(clock: Clock, owner: str | None, agreement: Agreement, time: WorkingTime, at: datetime) -> Clock:
    """Return the clock as it stands at `at`: what `owner` used is booked. One that ran out stays overdue."""
    return clock if clock.breached_at else handed_over(clock, agreement, (owner, time), time, at)


def resumed(clock: Clock, agreement: Agreement, time: WorkingTime, at: datetime) -> Clock:
    """Return a stopped clock as it runs on from `at` with the time that it had left."""
    if clock.breached_at or clock.within is None:
        return clock
    moved = clock.model_copy(update={"since": at, "due_at": time.due(at, clock.within)})
    return _with_reminders(moved, agreement, time, at, most=len(clock.reminders))


def escalated(clock: Clock, rung: int, agreement: Agreement, time: WorkingTime, at: datetime) -> Clock:
    """Return the clock once `rung` of its ladder was climbed: it stays overdue, and the next rung has its time."""
    within = _within(clock.kind, agreement)
    return clock.model_copy(update={"rung": rung + 1, "rung_at": time.due(at, within) if within else None})


def ladder(kind: ClockKind, agreement: Agreement) -> tuple[Rung, ...]:
    """Return the rungs that a clock's breach climbs, one each time that its time runs out again."""
    sla = _sla(kind, agreement)
    rungs: list[Rung] = []
    for rung in sla.on_breach if sla else ():
        rungs += ["reassign"] * rung.reassign if isinstance(rung, ReassignRung) else [rung]
    return tuple(rungs) or ("manager",)


def rungs_from(clock: Clock, agreement: Agreement) -> Iterator[tuple[int, Rung]]:
    """Yield what may be done about a breach, the next rung first; past the top the last one comes again.

    Nobody else to reassign to leads on to the next rung, and at the end of it always to the manager.
    """
    rungs = ladder(clock.kind, agreement)
    yield from ((number, rungs[number]) for number in range(clock.rung, len(rungs)))
    if rungs[-1] != "reassign":
        yield max(clock.rung, len(rungs) - 1), rungs[-1]
    yield max(clock.rung, len(rungs)), "manager"


def _with_reminders(
    clock: Clock, agreement: Agreement, time: WorkingTime, at: datetime, *, most: int | None = None
) -> Clock:
    """Lay the reminders that are still to come: shares of the whole time, what earlier owners used included.

    `most` is how many have not rung yet: a calendar that makes the whole time longer lays none of the others again.
    """
    sla = _sla(clock.kind, agreement)
    if sla is None or not sla.remind_at:
        return clock
    spent = timedelta(seconds=sum(clock.spent.values()))
    whole = spent + time.between(clock.counted_from, clock.due_at)
    shares = (whole * int(share.rstrip("%")) / 100 - spent for share in sla.remind_at)
    laid = sorted(time.add(clock.counted_from, share) for share in shares if share > timedelta(0))
    to_come = tuple(one for one in laid if at < one < clock.due_at)
    rung = 0 if most is None else max(len(to_come) - most, 0)
    return clock.model_copy(update={"reminders": to_come[rung:]})


def _within(kind: ClockKind, agreement: Agreement) -> str | None:
    if kind is ClockKind.UNABLE_TO_REACH:
        days = agreement.sla.unable_to_reach.business_days
        return f"{days}d" if days else None
    sla = _sla(kind, agreement)
    return sla.within if sla else None


def _sla(kind: ClockKind, agreement: Agreement) -> Sla | None:
    found = getattr(agreement.sla, kind)
    return found if isinstance(found, Sla) else None


def _seconds(time: timedelta) -> int:
    return round(time.total_seconds())
