"""The list of what is held on a lead is complete: whoever adds a table or a column says whose it is."""

import re
from collections import Counter
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from models import tables
from models.personal import HOLDINGS, TAKEN_OUT, Fate, Holding, Person
from models.session import make_engine, sessions

TABLES = {table.name: table for table in SQLModel.metadata.sorted_tables}
JO = Person(
    (UUID(int=7),), ("jo@acme.test", "crm-1815"), ("+15125550199",), ("Jo Küster", "Zoë (Acme)")
)  # fmt: skip
SAYS_JO = [
    "mail to Jo@Acme.test, please",
    "<jo@acme.test>",
    f"/leads/{UUID(int=7)}",
    'userId: "crm-1815"',
    '{"names": ["somebody", "crm-1815"]}',
    "call (512) 555-0199 today",
    "call 0512.555.0199",
]
SAYS_OTHERS = [
    '{"employees": "crm-1815"}',  # a name that is no address may also be a number, or anything else
    "1512555019900",
    "mojo@acme.test",
    "jo@acme.test-house.test",
    "crm-1815",
    "512555019912",
    "+15125550188",
]


def test_every_table_is_classified_once() -> None:
    assert Counter(holding.name for holding in HOLDINGS) == Counter([*TABLES])
    assert tables.Lead.__tablename__ in TABLES


@pytest.mark.parametrize("holding", HOLDINGS, ids=lambda holding: holding.name)
def test_every_column_is_classified_once(holding: Holding) -> None:
    columns = Counter(column.name for column in TABLES[holding.name].columns)
    assert Counter([*holding.lead, *holding.staff, *holding.plain]) == columns


@pytest.mark.parametrize("holding", HOLDINGS, ids=lambda holding: holding.name)
def test_what_is_a_leads_is_erased_and_what_is_not_stays(holding: Holding) -> None:
    assert bool(holding.lead) == (holding.fate is not Fate.STAYS)


def test_rows_go_before_the_rows_that_they_name() -> None:
    order = [holding.name for holding in HOLDINGS if holding.fate is Fate.GOES]
    for name in order:
        for key in TABLES[name].foreign_keys:
            named = key.column.table.name
            if named in order and named != name:
                assert order.index(name) < order.index(named), f"{name} names {named}"


@pytest.mark.parametrize("text", SAYS_JO)
def test_what_names_a_person_is_found(text: str) -> None:
    assert re.search(JO.surely, text, re.IGNORECASE)


@pytest.mark.parametrize("text", SAYS_OTHERS)
def test_what_names_somebody_else_is_not(text: str) -> None:
    assert not re.search(JO.perhaps, text, re.IGNORECASE)


async def test_postgresql_finds_the_same_in_text_and_in_bytes(database_url: str) -> None:
    engine = make_engine(database_url)
    async with sessions(engine)() as session:
        for said, expected in ((SAYS_JO, True), (SAYS_OTHERS, False)):
            for text in said:
                in_text = sa.select(JO.in_text(sa.literal(text)))
                in_bytes = sa.select(JO.in_bytes(sa.literal(text.encode())))
                for query in (in_text, in_bytes):
                    assert (await session.exec(query)).scalar_one() is expected, text  # type: ignore[call-overload]
        for raw in (b"Jo K\xc3\xbcster", rb'{"name": "Jo K\u00fcster"}', "jo Küster ist da".encode()):
            query = sa.select(JO.in_bytes(sa.literal(raw), perhaps=True))
            assert (await session.exec(query)).scalar_one(), raw  # type: ignore[call-overload]
        known = Person((UUID(int=7),), tuple(f"visitor-{number}" for number in range(6_000)))
        for text, expected in (('"userId": "visitor-5999"', True), ('"userId": "visitor-6000"', False)):
            query = sa.select(known.in_text(sa.literal(text)))
            assert (await session.exec(query)).scalar_one() is expected, text  # type: ignore[call-overload]
    await engine.dispose()


def test_a_person_is_taken_out_of_an_alert_and_others_stay_in_it() -> None:
    theirs, others = f"https://b.test/leads/{UUID(int=7)}", f"https://b.test/leads/{UUID(int=8)}"
    text = (
        f"Jo Küster (Acme) is yours.\n  Why: a form\n  {theirs}\n\n"
        f"Jo Küster (Other) is yours.\n  {others}\n\n"
        "Colleagues there:\n  Zoë (Acme) is in MQL with Max.\n  Ida (Acme) is in SAL with Max.\n"
    )
    left = JO.taken_out_of(text)
    assert left == (
        f"{TAKEN_OUT}\n\nJo Küster (Other) is yours.\n  {others}\n\n"
        f"Colleagues there:\n{TAKEN_OUT}\n  Ida (Acme) is in SAL with Max.\n"
    )
    assert JO.about_in(text).startswith("Jo Küster (Acme) is yours.") and others not in JO.about_in(text)
