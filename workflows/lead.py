"""One lead, for as long as it lives: the workflow that always knows its stage, its clock and its owner."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeUpdate
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.contracts import LEAD_GONE, NOTE_REFUSED, SETTLE, Refused, Settlement
    from lifecycle.commands import Command, name
    from lifecycle.lead import (
        Answer,
        Deadline,
        Fact,
        LeadState,
        Moment,
        NotPossible,
        Plan,
        Refusal,
        Standing,
        advance,
    )
    from lifecycle.moments import events_of
    from lifecycle.stages import Event, Stage

    from . import names

LONGEST_HISTORY: Final = 1_000
"""Events; the server would suggest to continue as new only at 4,096, and replay costs about 0.3 ms an event."""
LONGEST_RUN: Final = timedelta(days=90)
_AT_MOST: Final = timedelta(seconds=10)
_AGAIN: Final = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10))


@dataclass(slots=True)
class Request:
    """A decision on its way through the inbox; `update_id` is None when nobody waits for the answer."""

    command: Command
    update_id: str | None = None
    answer: Answer | None = None


@workflow.defn
class LeadWorkflow:
    """Handlers put what they hear into the inbox; the loop settles one thing at a time."""

    @workflow.init
    def __init__(self, lead: LeadState) -> None:
        self._lead = lead
        self._inbox: deque[Request | Moment | Deadline] = deque()
        self._alarm: tuple[Deadline, asyncio.Task[None]] | None = None
        self._shown: dict[str, Any] = {}
        self._began = workflow.now()

    @workflow.run
    async def run(self, lead: LeadState) -> Stage:
        """Settle what comes until the lead is closed; returns the stage in which it ended."""
        try:
            while True:
                if self._inbox:
                    await self._settle(self._inbox.popleft())
                elif not workflow.all_handlers_finished():
                    await workflow.wait_condition(lambda: bool(self._inbox) or workflow.all_handlers_finished())
                elif self._lead.is_closed:
                    return self._lead.stage
                elif self._has_run_long():
                    workflow.continue_as_new(self._lead)
                else:
                    await self._listen()
        except (ActivityError, ApplicationError) as error:  # a local activity fails with what it raised itself
            if _is_gone(error):
                return self._lead.stage
            raise

    @workflow.update
    async def decide(self, command: Command) -> Standing:
        """A person decides; returns where the lead now stands, once lists show it too."""
        request = Request(command, update_id=_update_id())
        known = self._lead.answers.get(_update_id())
        if known is None:
            self._inbox.append(request)
            await workflow.wait_condition(lambda: request.answer is not None)
        answer = known or request.answer
        if answer is None or answer.standing is None:
            raise _failure(answer.refusal if answer and answer.refusal else Refusal(detail="Not possible."))
        return answer.standing

    @decide.validator
    def _may_decide(self, command: Command) -> None:
        if _update_id() in self._lead.answers:
            return
        try:
            name(command, self._lead, workflow.now())
        except NotPossible as refused:
            raise _failure(refused.refusal) from None

    @workflow.signal
    def submit(self, command: Command) -> None:
        """The same decision from another workflow or the command line; one not possible goes on the timeline."""
        self._inbox.append(Request(command))

    @workflow.signal
    def moments(self, moments: list[Moment]) -> None:
        """Ingest reports what the agreement says must move the lead; one heard before is ignored."""
        self._inbox.extend(moments)

    @workflow.query
    def standing(self) -> LeadState:
        """All that this workflow knows of the lead."""
        return self._lead

    async def _listen(self) -> None:
        """Wait for a decision, a moment or the earliest deadline, whichever comes first."""
        self._set_alarm(self._lead.deadline())
        await workflow.wait_condition(lambda: bool(self._inbox))

    def _set_alarm(self, deadline: Deadline | None) -> None:
        """Keep a running timer while its deadline stands: each timer costs two events of history."""
        if self._alarm and (deadline is None or self._alarm[0] != deadline):
            self._alarm[1].cancel()
            self._alarm = None
        if deadline and not self._alarm:
            self._alarm = deadline, asyncio.create_task(self._ring(deadline))

    async def _ring(self, deadline: Deadline) -> None:
        left = deadline.at - workflow.now()
        if left > timedelta(0):
            await workflow.sleep(left, summary=deadline.event)
        self._alarm = None
        self._inbox.append(deadline)

    async def _settle(self, heard: Request | Moment | Deadline) -> None:
        match heard:
            case Request():
                await self._settle_request(heard)
            case Moment():
                await self._settle_moment(heard)
            case Deadline():
                if self._lead.deadline() == heard:
                    await self._move(heard.event, heard.fact)

    async def _settle_request(self, request: Request) -> None:
        at = workflow.now()
        try:
            event, fact = name(request.command, self._lead, at)
        except NotPossible as refused:
            request.answer = Answer(refusal=refused.refusal)
            if request.update_id is None:
                await self._note_refused(request.command, refused.refusal, at)
        else:
            await self._move(event, fact)
            request.answer = Answer(standing=self._lead.standing)
        if request.update_id:
            self._lead = self._lead.with_answer(request.update_id, request.answer)

    async def _settle_moment(self, moment: Moment) -> None:
        """Each moment counts once, and only in the cycle in which it happened."""
        if not moment.concerns(self._lead):
            return
        self._lead = self._lead.with_seen(moment.key)
        for event, fact in events_of(moment, lambda: self._lead, workflow.now()):
            await self._move(event, fact)

    async def _move(self, event: Event, fact: Fact) -> None:
        """Move the lead through the table, and have the move settled and shown before anything else happens."""
        moved, move = advance(self._lead, event, workflow.now(), fact)
        plan: Plan = await workflow.execute_local_activity(
            SETTLE,
            Settlement(lead=moved, move=move),
            result_type=Plan,
            start_to_close_timeout=_AT_MOST,
            retry_policy=_AGAIN,
        )
        self._lead = moved.with_plan(plan)
        self._show()

    async def _note_refused(self, command: Command, refusal: Refusal, at: datetime) -> None:
        refused = Refused(lead_id=self._lead.lead_id, by=command.by, asked=command.do, at=at, refusal=refusal)
        await workflow.execute_local_activity(
            NOTE_REFUSED, refused, start_to_close_timeout=_AT_MOST, retry_policy=_AGAIN
        )

    def _show(self) -> None:
        """Let operations find and read the lead in Temporal's own tools; ids only, nothing personal."""
        lead = self._lead
        sla = lead.sla
        gone = lead.merged_into is not None
        now: dict[str, Any] = {
            "stage": "merged" if gone else lead.stage.value,
            "owner": None if gone else lead.owner,
            "account": lead.account,
            "track": None if gone else lead.track,
            "agreement": lead.terms.version if lead.terms else None,
            "sla_due": sla.due_at if sla else None,
        }
        changes = [_attribute(key, now[key]) for key in now if now[key] != self._shown.get(key)]
        self._shown = now
        if changes:
            workflow.upsert_search_attributes(changes)
        workflow.set_current_details(_details(lead))

    def _has_run_long(self) -> bool:
        info = workflow.info()
        return (
            info.get_current_history_length() >= LONGEST_HISTORY
            or info.is_continue_as_new_suggested()
            or workflow.now() - self._began >= LONGEST_RUN
        )


_KEYS: Final = {
    "stage": names.STAGE,
    "owner": names.OWNER,
    "account": names.ACCOUNT,
    "track": names.TRACK,
    "agreement": names.AGREEMENT,
    "sla_due": names.SLA_DUE,
}


def _attribute(shown: str, value: Any) -> SearchAttributeUpdate[Any]:
    key: Any = _KEYS[shown]
    update: SearchAttributeUpdate[Any] = key.value_unset() if value is None else key.value_set(value)
    return update


def _details(lead: LeadState) -> str:
    waits = lead.deadline()
    stage = f"merged into {lead.merged_into}, stood in {lead.stage.upper()}" if lead.merged_into else lead.stage.upper()
    lines: Sequence[str] = (
        f"**{stage}** since {lead.since:%Y-%m-%d %H:%M} UTC, cycle {lead.cycle}",
        f"owner: {lead.owner or 'nobody'}; track: {lead.track or 'none'}",
        f"next by itself: {waits.event} at {waits.at:%Y-%m-%d %H:%M} UTC" if waits else "waits to hear of the lead",
    )
    return "\n\n".join(lines)


def _update_id() -> str:
    info = workflow.current_update_info()
    assert info is not None  # noqa: S101 - only called in an update's handler and validator
    return info.id


def _failure(refusal: Refusal) -> ApplicationError:
    return ApplicationError(
        refusal.detail, refusal.model_dump(mode="json"), type=NotPossible.__name__, non_retryable=True
    )


def _is_gone(error: ActivityError | ApplicationError) -> bool:
    cause = error.cause if isinstance(error, ActivityError) else error
    return isinstance(cause, ApplicationError) and cause.type == LEAD_GONE
