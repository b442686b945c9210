"""A launch does what its dry run said, page by page, and enrols nobody twice, whatever dies or changes on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlmodel import col, select
from temporalio import activity
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.launches import ENROLL_PAGE, Cruise, Launches, Reached
from agreements.reader import read_tracks
from lifecycle.commands import Accept, Enroll, Unenroll
from lifecycle.lead import LeadState, Moment
from lifecycle.reasons import Reason
from lifecycle.stages import Stage
from models import launches, tracks
from models.launches import aim_at, dry_run, launch_json, refusals
from models.outreach import EVERY_TOPIC, Signer, refusal, say, suppress
from models.segments import Segment
from models.session import in_transaction, make_engine, sessions
from models.tables import Engagement, Launch, LaunchLead, Lead, OutboxMoment, TimelineEntry
from tests.support import MIDMARKET, Relay, a_user, running, sign_the_example
from workflows.launch import LaunchWorkflow

SIGNER = Signer(b"secret")
TRACK = "- {{id: {id}, name: News, topic: news, steps: [{{wait: 30d}}, {{email: {{subject: Hi, body: Hello}}}}]}}"
AT_ONCE = 1_000.0


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def relay(own_database: Callable[[str], str], temporal: WorkflowEnvironment) -> AsyncIterator[Relay]:
    """A relay on a database of its own: whoever is launched at is nobody else's."""
    engine = make_engine(own_database("launches"))
    async with running(engine, sessions(engine), temporal.client) as relay:
        yield relay
    await engine.dispose()


@pytest.fixture
def batch() -> str:
    """What the leads of one test have in common, in their profile."""
    return uuid4().hex


async def a_track(relay: Relay) -> str:
    id_ = f"news-{uuid4().hex[:8]}"
    await tracks.save(relay.make, read_tracks(TRACK.format(id=id_)), "", None, relay.now())
    return id_


def of(batch: str, **more: Any) -> Segment:
    return Segment.model_validate({"fields": [{"field": "batch", "equals": batch}], **more})


async def stored(relay: Relay, count: int, **profile: Any) -> list[UUID]:
    """Leads in nurture as far as the database knows; no workflow has heard of them."""
    ids = [await relay.a_lead(**profile) for _ in range(count)]
    async with relay.make() as session, session.begin():
        await session.exec(sa.update(Lead).where(col(Lead.id).in_(ids)).values(stage=Stage.NURTURE))
    return ids


async def nurtured(relay: Relay, count: int, **profile: Any) -> list[UUID]:
    """Leads that came, and are on their first track."""
    ids = [await relay.a_lead(**profile) for _ in range(count)]
    arrival = {"key": "1:arrival", "cause": "arrival", "at": relay.now(), "cycle": 1, "prequalified": True}
    await asyncio.gather(*(relay.start(id_, [Moment.model_validate(arrival)]) for id_ in ids))
    for id_ in ids:
        await relay.until(id_, lambda lead: lead.stage is Stage.NURTURE)
    return ids


async def handed_over(relay: Relay, lead_id: UUID) -> LeadState:
    ready = {"key": "1:sales_ready", "cause": "threshold", "at": relay.now(), "cycle": 1, "sales_ready": True}
    await relay.tell(lead_id, Moment.model_validate(ready))
    return await relay.standing(lead_id)


async def accepted(relay: Relay, lead_id: UUID) -> None:
    lead = await handed_over(relay, lead_id)
    await relay.decide(lead_id, Accept(by=lead.owner or "rep"))


async def tried(relay: Relay, track: str, segment: Segment) -> dict[str, Any]:
    async with relay.make() as session:
        return await dry_run(session, await aim_at(session, track, segment, SIGNER, relay.now()))


async def launched(relay: Relay, track: str, segment: Segment, rate: float = AT_ONCE) -> UUID:
    by = await a_user(relay.make, "marketing")
    return await launches.launch(relay.make, track, segment, SIGNER, rate=rate, by=by.id, at=relay.now())


async def shown(relay: Relay, launch_id: UUID) -> dict[str, Any]:
    async with relay.make() as session:
        found = await launch_json(session, launch_id)
    assert found is not None
    assert found["total"] == found["enrolled"] + found["skipped"] + found["waiting"]
    return found


async def goes_on(relay: Relay, launch_id: UUID) -> str:
    """Have the launch's workflow started, and return how it ended."""
    await relay.work.launches.call()
    result: str = await relay.client.get_workflow_handle(f"launch-{launch_id}", result_type=str).result()
    return result


async def change(relay: Relay, launch_id: UUID, how: Any) -> None:
    async def work(session: Any) -> None:
        await how(session, await launches.hold(session, launch_id))

    await in_transaction(relay.make, work)


async def enrolments(relay: Relay, ids: list[UUID]) -> Counter[UUID]:
    """How often each lead was enrolled by a launch, as its timeline tells it."""
    query = select(TimelineEntry).where(col(TimelineEntry.lead_id).in_(ids), TimelineEntry.kind == "enrolled")
    async with relay.make() as session:
        told = [entry for entry in await session.exec(query) if str(entry.data.get("cause")).startswith("launch")]
    return Counter(entry.lead_id for entry in told)


async def moments(relay: Relay, launch_id: UUID) -> Counter[UUID]:
    query = select(OutboxMoment.lead_id).where(col(OutboxMoment.key).like(f"%:launch:{launch_id}"))
    async with relay.make() as session:
        return Counter(await session.exec(query))


async def everybody(relay: Relay, batch: str, track: str) -> tuple[dict[str, UUID], dict[str, int]]:
    """A lead for each thing that may keep it from being enrolled; returns them, and the counts that they must make."""
    names = (
        "one", "two", "three", "mql", "sal", "sql", "out", "silent", "suppressed", "objects", "on", "had", "held",
        "left_out", "other", "elsewhere",
    )  # fmt: skip
    ids = dict(zip(names, await nurtured(relay, len(names), batch=batch), strict=True))
    ids["new"] = await relay.a_lead(batch=batch)
    await handed_over(relay, ids["mql"])
    await accepted(relay, ids["sal"])
    ruled = {"key": "1:ruled_out", "cause": "r", "at": relay.now(), "cycle": 1, "ruled_out": Reason.NO_FIT}
    await relay.tell(ids["out"], Moment.model_validate(ruled))
    paused = await a_track(relay)
    for who, where in (("on", track), ("had", track), ("held", paused), ("elsewhere", await a_track(relay))):
        await relay.decide(ids[who], Enroll(by="mia", track=where))
    await relay.decide(ids["had"], Unenroll(by="mia"))
    async with relay.make() as session, session.begin():
        await tracks.pause(session, paused, relay.now())
        rows = {name: await session.get_one(Lead, id_) for name, id_ in ids.items()}
        rows["silent"].email = None
        rows["sql"].stage = Stage.WON  # as far as lists show it
        await suppress(session, SIGNER.digest(rows["suppressed"].email or ""), "a mail bounced", relay.now())
        await say(session, ids["objects"], "news", granted=False, source="page", at=relay.now())
        await say(session, ids["other"], "events", granted=False, source="page", at=relay.now())
    return ids, {
        "it is an inquiry, and begins on its first track by itself": 1,
        "it is with sales (mql)": 1,
        "it is with sales (sal)": 1,
        "it is won": 1,
        "it is disqualified": 1,
        "it is on the track already": 1,
        "it had this version of the track before": 1,
        "it is held on a track that is paused": 1,
        "the segment leaves it out": 1,
        "there is no address": 1,
        "the address gets no mail: a mail bounced": 1,
        "the lead wants no mail about news": 1,
    }


async def test_what_a_dry_run_counts_is_what_then_happens(relay: Relay, batch: str) -> None:
    track = await a_track(relay)
    ids, reasons = await everybody(relay, batch, track)
    segment = of(batch, exclude={"leads": [str(ids["left_out"])]})
    before = await tried(relay, track, segment)
    assert before["reasons"] == reasons
    assert (before["total"], before["would_enroll"], before["skipped"]) == (17, 5, 12)
    some = before["sample"]
    wanted = {str(ids[name]) for name in ("one", "two", "three", "other", "elsewhere")}
    assert {lead["id"] for lead in some["would_enroll"]} == wanted
    [sal] = some["skipped"]["it is with sales (sal)"]
    assert (sal["id"], sal["name"], sal["stage"]) == (str(ids["sal"]), "Jo Doe", "sal")

    launch_id = await launched(relay, track, segment)
    begun = await shown(relay, launch_id)
    assert (begun["state"], begun["enrolled"], begun["skipped"], begun["waiting"]) == ("running", 0, 12, 5)
    assert await goes_on(relay, launch_id) == "done"
    after = await shown(relay, launch_id)
    assert (after["total"], after["enrolled"], after["skipped"]) == (17, 5, 12)
    assert after["reasons"] == before["reasons"] and after["ended_at"]

    await relay.outbox.deliver()
    for name in ("one", "two", "three", "other", "elsewhere"):
        await relay.until(ids[name], lambda lead: lead.track == track and lead.place is not None)
    assert await enrolments(relay, list(ids.values())) == Counter({UUID(id_): 1 for id_ in wanted})
    again = await tried(relay, track, segment)
    assert (again["would_enroll"], again["reasons"]["it is on the track already"]) == (0, 6)


async def test_leads_that_sales_has_are_enrolled_where_they_stand_when_asked_for(relay: Relay, batch: str) -> None:
    track, [mql, sal, nurture] = await a_track(relay), await nurtured(relay, 3, batch=batch)
    await handed_over(relay, mql)
    await accepted(relay, sal)
    segment = of(batch, include_sales=True, stage=["mql", "sal"])
    assert (await tried(relay, track, segment))["would_enroll"] == 2
    launch_id = await launched(relay, track, segment)
    assert await goes_on(relay, launch_id) == "done"
    await relay.outbox.deliver()
    for lead_id, stage in ((mql, Stage.MQL), (sal, Stage.SAL)):
        lead = await relay.until(lead_id, lambda lead: lead.track == track)
        assert lead.stage is stage and lead.owner and lead.clocks
    assert (await relay.projection(nurture)).track == "welcome"


async def test_who_changes_between_choosing_and_enrolling_is_passed_over_with_the_reason(
    relay: Relay, batch: str
) -> None:
    track, ids = await a_track(relay), await nurtured(relay, 6, batch=batch)
    stays, taken, objects, moves, merged, other = ids
    launch_id = await launched(relay, track, of(batch))
    await accepted(relay, taken)
    async with relay.make() as session, session.begin():
        await say(session, objects, EVERY_TOPIC, granted=False, source="page", at=relay.now())
        row = await session.get_one(Lead, moves)
        row.profile = {**row.profile, "batch": "another"}
        (await session.get_one(Lead, merged)).merged_into = stays
    await relay.decide(other, Enroll(by="mia", track=track))
    assert await goes_on(relay, launch_id) == "done"
    after = await shown(relay, launch_id)
    assert (after["total"], after["enrolled"], after["skipped"]) == (6, 1, 5)
    assert after["reasons"] == {
        "it is with sales (sal)": 1,
        "the lead wants no mail": 1,
        "it is not in the segment any more": 1,
        "it was merged with another lead": 1,
        "it is on the track already": 1,
    }
    await relay.outbox.deliver()
    await relay.until(stays, lambda lead: lead.track == track)
    assert await enrolments(relay, ids) == Counter({stays: 1})
    assert (await relay.projection(taken)).track is None


async def test_who_is_accepted_before_the_moment_is_heard_is_left_to_the_rep(relay: Relay, batch: str) -> None:
    track, [lead_id] = await a_track(relay), await nurtured(relay, 1, batch=batch)
    launch_id = await launched(relay, track, of(batch))
    await a_page(relay, launch_id, 0)
    await accepted(relay, lead_id)
    await relay.outbox.deliver()
    lead = await relay.until(lead_id, lambda lead: f"1:launch:{launch_id}" in lead.seen)
    assert (lead.stage, lead.track) == (Stage.SAL, None)


async def a_page(relay: Relay, launch_id: UUID, done: int) -> Reached:
    return await relay.work.launches.enroll_page(str(launch_id), done)


async def test_a_paused_launch_enrolls_nobody_and_goes_on_where_it_was(relay: Relay, batch: str) -> None:
    track, ids = await a_track(relay), await stored(relay, 5, batch=batch)
    launch_id = await launched(relay, track, of(batch), rate=2)
    assert await a_page(relay, launch_id, 0) == Reached(state="running", done=2, total=5, pause=1, again=True)
    await change(relay, launch_id, launches.pause)
    assert await a_page(relay, launch_id, 2) == Reached(state="paused", done=2, total=5)
    assert await relay.work.launches.call() == 0
    await change(relay, launch_id, launches.resume)
    assert await a_page(relay, launch_id, 2) == Reached(state="running", done=4, total=5, pause=1, again=True)
    assert await a_page(relay, launch_id, 4) == Reached(state="done", done=5, total=5, pause=0.5)
    assert await moments(relay, launch_id) == Counter(dict.fromkeys(ids, 1))
    for too_late in (launches.pause, launches.resume):
        with pytest.raises(launches.CannotLaunch, match="The launch is done"):
            await change(relay, launch_id, too_late)


async def test_a_cancelled_launch_keeps_who_is_enrolled_and_passes_over_the_others(relay: Relay, batch: str) -> None:
    track, _ = await a_track(relay), await stored(relay, 5, batch=batch)
    launch_id = await launched(relay, track, of(batch), rate=2)
    await a_page(relay, launch_id, 0)
    for _ in range(2):
        await change(relay, launch_id, lambda session, row: launches.cancel(session, row, relay.now()))
    after = await shown(relay, launch_id)
    assert (after["state"], after["enrolled"], after["skipped"], after["waiting"]) == ("cancelled", 2, 3, 0)
    assert after["reasons"] == {"the launch was cancelled": 3}
    assert await a_page(relay, launch_id, 2) == Reached(state="cancelled", done=5, total=5, pause=1.5)
    assert sum((await moments(relay, launch_id)).values()) == 2


async def test_a_workflow_ends_with_the_pause_and_resuming_starts_it_again(relay: Relay, batch: str) -> None:
    track, _ = await a_track(relay), await stored(relay, 4, batch=batch)
    launch_id = await launched(relay, track, of(batch))
    await change(relay, launch_id, launches.pause)
    handle = await relay.client.start_workflow(
        LaunchWorkflow.run, Cruise(launch_id=str(launch_id)), id=f"launch-{launch_id}", task_queue=relay.task_queue
    )
    assert await handle.result() == "paused"
    await change(relay, launch_id, launches.resume)
    assert await goes_on(relay, launch_id) == "done"
    assert (await shown(relay, launch_id))["enrolled"] == 4


class ResumedMeanwhile(Launches):
    """Finds the launch paused, and somebody resumes it before the workflow hears of that."""

    @activity.defn(name=ENROLL_PAGE)
    async def enroll_page(self, launch_id: str, done: int) -> Reached:
        reached = await super().enroll_page(launch_id, done)
        if reached.state == "paused":
            async with self._make() as session, session.begin():
                await launches.resume(session, await session.get_one(Launch, UUID(launch_id)))
            assert await self.call() == 0
        return reached


async def test_a_launch_resumed_just_as_its_workflow_ends_goes_on(relay: Relay, batch: str) -> None:
    track, _ = await a_track(relay), await stored(relay, 3, batch=batch)
    launch_id, queue = await launched(relay, track, of(batch)), f"launches-{uuid4().hex[:8]}"
    await change(relay, launch_id, launches.pause)
    work = ResumedMeanwhile(relay.make, relay.client, queue, SIGNER)
    async with Worker(relay.client, task_queue=queue, workflows=[LaunchWorkflow], activities=[work.enroll_page]):
        handle = await relay.client.start_workflow(
            LaunchWorkflow.run, Cruise(launch_id=str(launch_id)), id=f"launch-{launch_id}", task_queue=queue
        )
        assert await handle.result() == "done"
    assert (await shown(relay, launch_id))["enrolled"] == 3


class DiesBeforeItAnswers(Launches):
    """Hangs when a page is committed, before Temporal hears of it."""

    there: asyncio.Event

    @activity.defn(name=ENROLL_PAGE)
    async def enroll_page(self, launch_id: str, done: int) -> Reached:
        await super().enroll_page(launch_id, done)
        self.there.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_page_whose_worker_died_before_it_answered_is_not_done_again(relay: Relay, batch: str) -> None:
    track, ids = await a_track(relay), await stored(relay, 9, batch=batch)
    launch_id, queue = await launched(relay, track, of(batch), rate=3), f"launches-{uuid4().hex[:8]}"
    dying = DiesBeforeItAnswers(relay.make, relay.client, queue, SIGNER)
    dying.there = asyncio.Event()
    async with Worker(relay.client, task_queue=queue, workflows=[LaunchWorkflow], activities=[dying.enroll_page]):
        assert await dying.call() == 1
        await dying.there.wait()
    assert (await shown(relay, launch_id))["enrolled"] == 3
    assert await a_page(relay, launch_id, 0) == Reached(state="running", done=3, total=9, pause=1, again=True)
    work = Launches(relay.make, relay.client, queue, SIGNER)
    async with Worker(relay.client, task_queue=queue, workflows=[LaunchWorkflow], activities=[work.enroll_page]):
        assert await relay.client.get_workflow_handle(f"launch-{launch_id}").result() == "done"
    assert await moments(relay, launch_id) == Counter(dict.fromkeys(ids, 1))


async def test_pages_that_run_twice_at_once_enroll_everybody_once(relay: Relay, batch: str) -> None:
    track, ids = await a_track(relay), await stored(relay, 6, batch=batch)
    launch_id = await launched(relay, track, of(batch), rate=2)
    done = 0
    while done < 6:
        several = await asyncio.gather(*(a_page(relay, launch_id, done) for _ in range(3)))
        assert {reached.done for reached in several} == {done + 2}
        done += 2
    assert await moments(relay, launch_id) == Counter(dict.fromkeys(ids, 1))


async def test_a_large_launch_continues_as_new_and_its_histories_hold_nobody(
    relay: Relay, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "MOST_AT_ONCE", 1)
    track, ids = await a_track(relay), await stored(relay, 100, batch=batch)
    launch_id = await launched(relay, track, of(batch))
    assert await relay.work.launches.call() == 1
    handle = relay.client.get_workflow_handle(f"launch-{launch_id}")
    first = (await handle.describe()).run_id
    assert await handle.result() == "done"
    last = (await handle.describe()).run_id
    assert first != last
    for run_id in (first, last):
        told = await relay.client.get_workflow_handle(f"launch-{launch_id}", run_id=run_id).fetch_history()
        assert "acme" not in told.to_json() and not any(str(id_) in told.to_json() for id_ in ids)
    assert await moments(relay, launch_id) == Counter(dict.fromkeys(ids, 1))


async def test_a_second_launch_passes_over_whom_the_first_is_about_to_enroll_or_had(relay: Relay, batch: str) -> None:
    track, _ = await a_track(relay), await stored(relay, 4, batch=batch)
    first = await launched(relay, track, of(batch), rate=2)
    await a_page(relay, first, 0)
    second = await shown(relay, await launched(relay, track, of(batch)))
    assert (second["state"], second["total"]) == ("done", 4)
    assert second["reasons"] == {
        "another launch of the track is about to enrol it": 2,
        "it had this version of the track before": 2,
    }
    await a_page(relay, first, 2)
    elsewhere = await tried(relay, await a_track(relay), of(batch, exclude={"launched": [str(first)]}))
    assert elsewhere["reasons"] == {f"it was in the launch {first}": 4}


async def test_launches_of_a_track_at_the_same_time_choose_nobody_twice(relay: Relay, batch: str) -> None:
    track, _ = await a_track(relay), await stored(relay, 5, batch=batch)
    several = await asyncio.gather(*(launched(relay, track, of(batch)) for _ in range(3)))
    assert sorted([(await shown(relay, id_))["waiting"] for id_ in several]) == [0, 0, 5]


async def test_a_new_version_of_a_track_may_be_launched_at_those_who_had_the_old_one(relay: Relay, batch: str) -> None:
    track, _ = await a_track(relay), await stored(relay, 2, batch=batch)
    await a_page(relay, await launched(relay, track, of(batch)), 0)
    assert (await tried(relay, track, of(batch)))["would_enroll"] == 0
    newer = TRACK.format(id=track).replace("30d", "31d")
    await tracks.save(relay.make, read_tracks(newer), "", None, relay.now())
    assert (await tried(relay, track, of(batch)))["would_enroll"] == 2


async def test_a_paused_track_is_not_launched(relay: Relay, batch: str) -> None:
    track, _ = await a_track(relay), await stored(relay, 1, batch=batch)
    async with relay.make() as session, session.begin():
        await tracks.pause(session, track, relay.now())
    with pytest.raises(launches.CannotLaunch, match="is paused"):
        await launched(relay, track, of(batch))
    with pytest.raises(launches.NoSuchTrack):
        await launched(relay, "no-such-track", of(batch))


async def test_who_is_erased_while_a_launch_runs_is_counted_all_the_same(relay: Relay, batch: str) -> None:
    track, ids = await a_track(relay), await stored(relay, 3, batch=batch)
    launch_id = await launched(relay, track, of(batch))
    async with relay.make() as session, session.begin():
        await session.exec(sa.delete(LaunchLead).where(col(LaunchLead.lead_id) == ids[0]))
        await session.exec(sa.delete(Lead).where(col(Lead.id) == ids[0]))
    assert await goes_on(relay, launch_id) == "done"
    after = await shown(relay, launch_id)
    assert (after["enrolled"], after["reasons"]) == (2, {"it is no longer there": 1})


async def test_engagements_pick_the_leads_that_did_them_ever_or_lately(relay: Relay, batch: str) -> None:
    track, [lately, once, never] = await a_track(relay), await stored(relay, 3, batch=batch)
    now = relay.now()
    async with relay.make() as session, session.begin():
        for lead_id, at in ((lately, now), (once, now.replace(year=now.year - 2))):
            did: dict[str, Any] = {
                "message_id": uuid4().hex,
                "event": "page_viewed",
                "properties": {"path": "/pricing"},
            }
            session.add(Engagement(**did, visitor_id=lead_id, at=at, received_at=at))
    viewed = {"event": "page_viewed", "where": {"path": "/pric*"}}
    for criterion, days, expected in (
        (viewed, None, {lately, once}),
        (viewed, 30, {lately}),
        ({"not": viewed}, None, {never}),
        ({"not": viewed}, 30, {once, never}),
        ({"all": [viewed, {"field": "country", "equals": "us"}]}, 30, {lately}),
    ):
        segment = of(batch, engagements=criterion, **({"engagements_within_days": days} if days else {}))
        found = await tried(relay, track, segment)
        assert {UUID(lead["id"]) for lead in found["sample"]["would_enroll"]} == expected, criterion


async def test_each_part_of_a_segment_picks_its_leads(relay: Relay, batch: str) -> None:
    track, [low, high] = await a_track(relay), await stored(relay, 2, batch=batch)
    rep = await a_user(relay.make, "rep")
    async with relay.make() as session, session.begin():
        row = await session.get_one(Lead, high)
        row.score, row.fit, row.track, row.owner_id, email = 90, 60, "welcome", rep.id, row.email
        (await session.get_one(Lead, low)).created_at = relay.now().replace(year=2020)
    for more, expected in (
        ({"score": {"at_least": 90}}, {high}),
        ({"score": {"at_most": 89}}, {low}),
        ({"fit": {"at_least": 1, "at_most": 60}}, {high}),
        ({"track": {"on": ["welcome"]}}, {high}),
        ({"track": {"not_on": ["welcome"]}}, {low}),
        ({"owner": rep.email.upper()}, {high}),
        ({"owner": "none"}, {low}),
        ({"created_after": "2021-01-01T00:00:00Z"}, {high}),
        ({"account": str(uuid4())}, set()),
        ({"stage": ["nurture"]}, {low, high}),
        ({"stage": ["lost", "won"]}, set()),
        ({"exclude": {"emails": [email]}}, {low}),
        ({"exclude": {"tracks_done": ["welcome"]}}, {low}),
    ):
        found = await tried(relay, track, of(batch, **more))
        assert {UUID(lead["id"]) for lead in found["sample"]["would_enroll"]} == expected, more


async def test_the_reasons_against_a_mail_are_those_that_a_mail_on_its_way_would_meet(relay: Relay, batch: str) -> None:
    """Every way to be refused, under both rules of consent: many leads at once are told what each one is."""
    opt_in = await sign_the_example(relay.make, f"{MIDMARKET}\noutreach: {{consent: opt_in}}\n")
    words = [
        {},
        {"news": True},
        {"news": False},
        {"*": True},
        {"*": False},
        {"*": False, "news": True},
        {"*": True, "news": False},
    ]
    ids = await stored(relay, 4 * len(words), batch=batch)
    async with relay.make() as session, session.begin():
        for number, id_ in enumerate(ids):
            row = await session.get_one(Lead, id_)
            row.agreement_version = opt_in if number % 2 else opt_in - 1
            for topic, granted in words[number // 4].items():
                await say(session, id_, topic, granted=granted, source="page", at=relay.now())
        odd = [await session.get_one(Lead, id_) for id_ in await stored(relay, 4, batch=batch)]
        odd[0].email, odd[1].issues, odd[3].agreement_version = None, {"email": "is no address"}, None
        await suppress(session, SIGNER.digest(odd[2].email or ""), "it complained", relay.now())
    async with relay.make() as session:
        leads = list(await session.exec(select(Lead).where(col(Lead.profile)["batch"].astext == batch)))
        told = await refusals(session, leads, "news", SIGNER)
        alone = {lead.id: await refusal(session, lead, "news", SIGNER) for lead in leads}
    assert dict(told) == {id_: reason for id_, reason in alone.items() if reason}
    assert len(set(told.values())) == 6
    await sign_the_example(relay.make)
