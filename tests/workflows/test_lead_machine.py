"""A hypothesis state machine drives the real workflow and the table side by side: they never disagree."""

import asyncio
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lifecycle.commands import (
    Accept,
    Assign,
    Close,
    Command,
    Enroll,
    LogAttempt,
    Qualify,
    Reject,
    Reopen,
    Return,
    Unenroll,
)
from lifecycle.lead import LeadState, Moment, NotPossible
from lifecycle.reasons import Channel, Outcome, Reason, Verdict
from lifecycle.stages import TERMINAL, Event, Stage, rule_for
from tests.support import Relay
from workflows.gate import LeadUnknown, decide

COMMANDS = st.one_of(
    st.builds(Accept, by=st.just("u")),
    st.builds(Reject, by=st.just("u"), reason=st.sampled_from(Reason)),
    st.builds(
        LogAttempt, by=st.just("u"), channel=st.sampled_from(Channel), outcome=st.sampled_from(Outcome), at=st.none()
    ),
    st.builds(Qualify, by=st.just("u")),
    st.builds(Return, by=st.just("u"), reason=st.sampled_from(Reason)),
    st.builds(Close, by=st.just("u"), outcome=st.sampled_from(Verdict), amount=st.none()),
    st.builds(Enroll, by=st.just("u"), track=st.just("welcome")),
    st.builds(Unenroll, by=st.just("u")),
    st.builds(Reopen, by=st.just("u")),
)


def expected_event(lead: LeadState, command: Command) -> Event | None:
    """What the table and the terms say of a command; None when it is not possible."""
    try:
        event = command.event(lead, lead.since)
    except NotPossible:
        return None
    return event if rule_for(lead.stage, event) else None


async def test_the_workflow_and_the_table_never_disagree(relay: Relay) -> None:
    loop = asyncio.get_running_loop()

    def ask(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=60)

    class Lead(RuleBasedStateMachine):
        @initialize()
        def arrives(self) -> None:
            self.lead_id = ask(relay.a_lead())
            self.cycle_moments = 0
            ask(
                relay.tell(self.lead_id, Moment(key="1:a", cause="arrival", at=relay.now(), cycle=1, prequalified=True))
            )
            self.state: LeadState = ask(relay.standing(self.lead_id))
            assert self.state.stage is Stage.NURTURE

        @rule(request=st.booleans())
        def becomes_sales_ready(self, request: bool) -> None:
            if self.state.stage in TERMINAL:
                return
            self.cycle_moments += 1
            key, at = f"{self.state.cycle}:s{self.cycle_moments}", relay.now()
            moment = Moment(
                key=key, cause="contact_me", at=at, cycle=self.state.cycle, sales_ready=True, request=request
            )
            event = self.state.readiness(moment, at)
            row = rule_for(self.state.stage, event)
            ask(relay.tell(self.lead_id, moment))
            now = ask(relay.standing(self.lead_id))
            assert now.stage is (row.target if row else self.state.stage)
            self.state = now

        @rule(command=COMMANDS)
        def is_decided_on(self, command: Command) -> None:
            event = expected_event(self.state, command)
            row = rule_for(self.state.stage, event) if event else None
            try:
                answer = ask(decide(relay.client, self.lead_id, command, str(uuid4())))
            except (NotPossible, LeadUnknown):
                assert row is None or isinstance(command, LogAttempt)
            else:
                assert row is not None and answer.stage is row.target
            self.state = ask(relay.standing(self.lead_id))

        @rule()
        def is_given_to_someone_else(self) -> None:
            row = rule_for(self.state.stage, Event.ASSIGNED)
            command = Assign(by="u", owner=relay.reps[1])
            try:
                ask(decide(relay.client, self.lead_id, command, str(uuid4())))
            except (NotPossible, LeadUnknown):
                assert row is None
            else:
                assert row is not None
            self.state = ask(relay.standing(self.lead_id))

        @invariant()
        def lists_show_what_the_workflow_knows(self) -> None:
            if not hasattr(self, "state"):
                return
            shown = ask(relay.projection(self.lead_id))
            assert (shown.stage, shown.cycle, shown.version) == (
                self.state.stage,
                self.state.cycle,
                self.state.version,
            )
            assert (str(shown.owner_id) if shown.owner_id else None) == self.state.owner

    profile = settings(
        max_examples=8, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    await asyncio.to_thread(run_state_machine_as_test, Lead, settings=profile)
