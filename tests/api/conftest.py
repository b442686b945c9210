"""A running web application on real parts."""

from dataclasses import dataclass

import httpx2
import pytest_asyncio
from pydantic import SecretStr

from api.app import create_app
from api.house import House
from models.users import create_token, ensure_admin
from settings import Settings
from tests.support import Relay, a_user

WRITE_KEY = "write-key"


@dataclass(slots=True)
class Desk:
    """What a test of the API holds: the app, the relay behind it, and a client for each role."""

    relay: Relay
    house: House
    transport: httpx2.ASGITransport

    def client(self, token: str | None = None) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.AsyncClient(transport=self.transport, base_url="http://baton.test", headers=headers, timeout=60)

    async def as_role(self, role: str) -> tuple[str, httpx2.AsyncClient]:
        """Return the e-mail address of a new person of that role, and their client."""
        user = await a_user(self.relay.make, role)
        return user.email, self.client(await create_token(self.relay.make, user.id))

    async def as_owner(self, email: str) -> httpx2.AsyncClient:
        from models.users import find_user

        async with self.relay.make() as session:
            user = await find_user(session, email)
        assert user is not None
        return self.client(await create_token(self.relay.make, user.id))


@pytest_asyncio.fixture(scope="session")
async def desk(relay: Relay) -> Desk:
    settings = Settings(
        admin_token=SecretStr("admin-token"), write_key=SecretStr(WRITE_KEY), admin_password=SecretStr("correct horse")
    )
    await ensure_admin(relay.make, settings.admin_email, "correct horse")
    house = House(settings, relay.engine, relay.make, relay.client)
    return Desk(relay, house, httpx2.ASGITransport(create_app(house), raise_app_exceptions=False))


@pytest_asyncio.fixture(scope="session")
async def admin(desk: Desk) -> httpx2.AsyncClient:
    return desk.client("admin-token")
