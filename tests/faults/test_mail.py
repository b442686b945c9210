"""A mail server that refuses, delays, answers 4xx and 5xx, and a worker that dies after DATA: each step arrives once.

Where the protocol cannot tell (the mail was out, and no answer came back), it comes again under the same Message-ID.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope, Session

from tests.faults.house import House, serving, until

TRACK: dict[str, Any] = {
    "id": "steps",
    "name": "Steps",
    "steps": [{"email": {"subject": f"Step {number} for {{{{ lead.name }}}}", "body": "Hello"}} for number in (1, 2)],
}
OTHER: dict[str, Any] = TRACK | {"id": "other", "steps": [{"email": {"subject": "Other", "body": "Hello"}}]}
OFTEN = {"quiet": "never", "per_day": 100, "per_week": 500, "consent": "opt_out"}


class Server:
    """Treats each mail as the name of its recipient says, and counts what it took, and under which ids."""

    def __init__(self) -> None:
        self.taken: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.seen: dict[str, int] = defaultdict(int)
        self.kill: Callable[[], None] = lambda: None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.seen[address] += 1
        envelope.rcpt_tos.append(address)
        if address.startswith("gone"):
            return "550 no such user"
        return "451 come again" if address.startswith("busy") and self.seen[address] == 1 else "250 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: Any, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content)
        (to,) = envelope.rcpt_tos
        self.taken[to, str(mail["Subject"])].append(str(mail["Message-ID"]))
        if to.startswith("deadly") and len(self.taken[to, str(mail["Subject"])]) == 1:
            self.kill()  # it was taken; the answer meets nobody
        if to.startswith("slow"):
            await asyncio.sleep(2)
        return "250 kept"


@pytest.mark.faults
def test_each_step_arrives_once_or_under_the_same_id(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    server = Server()
    controller = Controller(server, "127.0.0.1", free_ports(1)[0])
    controller.start()
    try:
        with serving(tmp_path / "var", {"outreach": OFTEN}, smtp_url=f"smtp://127.0.0.1:{controller.port}") as house:
            server.kill = lambda: house.kill("worker")
            run(house, server)
    finally:
        controller.stop()


def run(house: House, server: Server) -> None:
    house.post("/api/tracks", [TRACK, OTHER])
    bystander = "bystander@acme.test"
    house.post(f"/api/leads/{house.arrive(bystander, hot=False)}/enroll", {"track": "other"})
    kinds = ("plain", "busy", "gone", "slow", "deadly")
    leads = {f"{kind}{number}@acme.test": "" for kind in kinds for number in range(3)}
    for email in leads:
        leads[email] = house.arrive(email, hot=False)
        house.post(f"/api/leads/{leads[email]}/enroll", {"track": "steps"})
    until(lambda: len(server.taken[bystander, "Other"]) == 1)  # another track goes on meanwhile
    over = "SELECT count(*) FROM mails WHERE track_id = 'steps' AND state IN ('waiting', 'called', 'sending')"
    until(lambda: house.rows(over) == [(0,)], patience=240)
    assert house.rows("SELECT count(*) FROM leads WHERE track = 'steps'") == [(0,)]  # whatever became of its mails
    assert house.rows("SELECT count(*) FROM mails WHERE track_id = 'steps'") == [(2 * len(leads),)]
    for email in leads:
        ids = [server.taken.get((email, f"Step {number} for Jo Doe"), []) for number in (1, 2)]
        if email.startswith("gone"):
            assert ids == [[], []]
        elif email.startswith("deadly"):
            assert all(mine and len(set(mine)) == 1 for mine in ids), ids
        else:
            # a worker that another mail killed may have had this one in its hands
            assert all(mine and len(set(mine)) == 1 for mine in ids), (email, ids)
    assert house.rows(
        "SELECT DISTINCT m.state FROM mails m JOIN leads l ON l.id = m.lead_id"
        " WHERE l.email LIKE 'gone%%' AND track_id = 'steps' ORDER BY 1"
    ) == [("bounced",), ("skipped",)]
    assert len({one for ids in server.taken.values() for one in ids}) == len(server.taken)
