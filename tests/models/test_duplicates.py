"""Pairs of leads that may be one person: what counts as alike, who is compared with whom, what is remembered."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlmodel import select

from models import duplicates, merges
from models.duplicates import BLOCK, NEIGHBOURS, Person, company_key, find, name_key
from models.ingest import CLASH
from models.leads import save_lead
from models.session import in_transaction
from models.tables import TimelineEntry
from models.users import Viewer
from tests.models.test_ingest import a_message
from tests.support import GOOD, Relay, a_user


def a_person(name: str = "", company: str = "", domain: str = "", phone: str = "") -> Person:
    return Person(uuid4(), name, company, domain, phone)


def reasons(*people: Person) -> list[str]:
    return [one.reason for one in find(people)]


async def a_marketer(relay: Relay) -> Viewer:
    user = await a_user(relay.make, "marketing")
    return Viewer(id=user.id, email=user.email, role="marketing")


async def a_lead(relay: Relay, **profile: Any) -> tuple[UUID, str]:
    email = f"jo.{uuid4().hex[:12]}@{uuid4().hex[:8]}.test"
    profile = {**GOOD, "email": email, "name": uuid4().hex, "company": uuid4().hex, **profile}
    return (await save_lead(relay.make, profile, at=relay.now())).id, email


async def of_lead(relay: Relay, viewer: Viewer, lead_id: UUID) -> list[duplicates.Suggestion]:
    async with relay.make() as session:
        return await duplicates.suggestions(session, viewer, lead_id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Müller, Jörg", "Jorg Muller"),
        ("Dr. José García", "garcia jose"),
        ("Łukasz  Sørensen", "Lukasz Sorensen"),
        ("O'Brien, Pat", "Pat OBrien"),
    ],
)
def test_names_are_compared_without_accents_titles_and_order(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Acme Inc.", "ACME"),
        ("Société Générale S.A.", "Societe Generale"),
        ("Weiß & Söhne GmbH & Co. KG", "Weiss Sohne"),
        ("Ferrari S.p.A.", "Ferrari"),
        ("Philips N.V.", "philips b.v."),
    ],
)
def test_companies_are_compared_without_their_legal_form(one: str, other: str) -> None:
    assert company_key(one) == company_key(other)


def test_a_name_that_is_all_legal_form_or_title_stays_a_name() -> None:
    assert (company_key("SE"), name_key("Prof"), name_key("")) == ("se", "prof", "")


def test_one_phone_number_is_one_person_the_surer_the_more_alike_the_names() -> None:
    sure, unsure = a_person("Jo Doe", phone="+14155550100"), a_person("Max Power", phone="+14155550100")
    (twice,) = find([sure, a_person("Doe, Jo", phone="+14155550100")])
    (shared,) = find([sure, unsure])
    assert twice.score > 95 > 75 > shared.score
    assert twice.reason == "the same phone number; the same name" and shared.reason == "the same phone number"


def test_a_name_alone_is_no_reason_and_with_the_company_or_the_domain_it_is() -> None:
    assert reasons(a_person("Jo Doe"), a_person("Jo Doe")) == []
    assert reasons(a_person("Jo Doe", "Acme Inc"), a_person("Doe Jo", "Acme")) == ["the same name; the same company"]
    assert reasons(a_person("Jo Doe", domain="acme.test"), a_person("Jo Doe", domain="acme.test")) == [
        "the same name; the same domain"
    ]
    assert reasons(a_person("Jo Doe", "Acme"), a_person("Max Power", "Acme")) == []


def test_a_slip_in_the_name_or_the_company_is_seen_through() -> None:
    assert reasons(a_person("Joanna Meyers", "Acme"), a_person("Joana Meyers", "Acme Ltd")) == [
        "names alike: Joanna Meyers and Joana Meyers; the same company"
    ]
    assert reasons(a_person("Jo Doe", "Acme Logistics"), a_person("Jo Doe", "Acme Logistcs GmbH")) == [
        "the same name; companies alike: Acme Logistics and Acme Logistcs GmbH"
    ]
    assert reasons(a_person("Jo Maria Doe", "Acme"), a_person("Jo Doe", "Acme"))


def test_a_domain_that_anybody_may_have_an_address_at_says_nothing() -> None:
    assert reasons(a_person("Jo Doe", domain="gmail.com"), a_person("Jo Doe", domain="gmail.com")) == []


def test_the_surest_pair_comes_first() -> None:
    same = [a_person("Jo Doe", "Acme", phone="+1415") for _ in range(2)]
    alike = a_person("Joe Doe", "Acme")
    scores = [one.score for one in find([alike, *same])]
    assert scores == sorted(scores, reverse=True) and scores[0] == 99


def test_in_a_large_company_the_work_grows_with_its_people_and_not_with_their_square() -> None:
    crowd = [a_person(f"{number:05d} {uuid4().hex}", "Acme", "acme.test") for number in range(20 * BLOCK)]
    twins = [a_person("Jo Doe", "Acme", "acme.test"), a_person("Doe, Jo", "Acme", "acme.test")]
    pairs = duplicates._pairs([duplicates._keyed(person) for person in [*crowd, *twins]])
    assert len(pairs) <= NEIGHBOURS * (len(crowd) + len(twins))
    assert (len(crowd), len(crowd) + 1) in pairs


async def test_two_leads_of_one_person_are_suggested_until_somebody_says_that_they_are_two(relay: Relay) -> None:
    viewer = await a_marketer(relay)
    name, company = f"Jo {uuid4().hex}", f"Firm {uuid4().hex}"
    (one, _), (two, _) = [await a_lead(relay, name=name, company=company) for _ in range(2)]
    third, _ = await a_lead(relay, name=name, company=f"{company} Inc")
    found = await of_lead(relay, viewer, one)
    assert {(pair.first, pair.second) for pair in found} == {(one, two), (one, third)}
    for _ in range(2):
        assert await in_transaction(
            relay.make, lambda session: duplicates.dismiss(session, [two, one], viewer.id, relay.now())
        )
    assert [(pair.first, pair.second) for pair in await of_lead(relay, viewer, one)] == [(one, third)]
    async with relay.make() as session:
        kept = select(TimelineEntry).where(TimelineEntry.kind == duplicates.DISMISSED)
        entries = [entry for entry in await session.exec(kept) if entry.lead_id in (one, two)]
    assert {(entry.lead_id, entry.data["other"]) for entry in entries} == {(one, str(two)), (two, str(one))}
    assert len(entries) == 2
    gone = await in_transaction(
        relay.make, lambda session: duplicates.dismiss(session, [one, uuid4()], viewer.id, relay.now())
    )
    assert gone is False


async def test_a_message_that_calls_two_leads_by_one_name_suggests_them_with_its_reason(relay: Relay) -> None:
    viewer = await a_marketer(relay)
    (one, first), (two, second) = await a_lead(relay), await a_lead(relay)
    await relay.ingest(a_message(relay, "aliased", "alias", user=first, previous=second))
    (pair,) = await of_lead(relay, viewer, one)
    assert (pair.first, pair.second) == (one, two) and CLASH.partition(";")[0] in pair.reason
    phone = f"+1415555{uuid4().int % 10_000:04d}"
    for email in (first, second):
        await save_lead(relay.make, {"email": email, "phone": phone}, at=relay.now())
    (pair,) = await of_lead(relay, viewer, one)
    assert "the same phone number" in pair.reason and CLASH.partition(";")[0] in pair.reason


async def test_a_clash_with_an_anonymous_visitor_or_a_trait_is_found_too(relay: Relay) -> None:
    viewer = await a_marketer(relay)
    (one, first), (_, second) = await a_lead(relay), await a_lead(relay)
    anonymous = uuid4().hex
    await relay.ingest(a_message(relay, user=second, anonymous=anonymous))
    await relay.ingest(a_message(relay, user=first, anonymous=anonymous))
    assert len(await of_lead(relay, viewer, one)) == 1


async def test_a_lead_that_was_merged_is_suggested_no_more(relay: Relay) -> None:
    viewer = await a_marketer(relay)
    name, company = f"Jo {uuid4().hex}", f"Firm {uuid4().hex}"
    (one, _), (two, _) = [await a_lead(relay, name=name, company=company) for _ in range(2)]
    await in_transaction(relay.make, lambda session: merges.begin(session, one, two, viewer.id, relay.now()))
    assert await of_lead(relay, viewer, one) == await of_lead(relay, viewer, two) == []


async def test_nobody_is_shown_a_lead_that_is_not_theirs_to_see(relay: Relay) -> None:
    manager = await a_user(relay.make, "manager")
    viewer = Viewer(id=manager.id, email=manager.email, role="manager")
    name, company = f"Jo {uuid4().hex}", f"Firm {uuid4().hex}"
    (one, _), _ = [await a_lead(relay, name=name, company=company) for _ in range(2)]
    assert await of_lead(relay, viewer, one) == []
