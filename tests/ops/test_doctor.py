"""The doctor says what is wrong, and no secret."""

from pathlib import Path

from pydantic import SecretStr

from ops.doctor import examine, settings_shown
from settings import Settings


def test_neither_secrets_nor_passwords_in_addresses_are_shown() -> None:
    given = Settings(
        database_url="postgresql://jo:hidden-1@db.test/baton?password=hidden-2",
        smtp_url="smtp://jo:hidden-3@mail.test:25",
        secret_key=SecretStr("hidden-4"),
        admin_password=SecretStr("hidden-5"),
        write_key=SecretStr("hidden-6"),
    )
    shown = settings_shown(given)
    assert "hidden" not in " ".join(shown.values())
    assert shown["BATON_DATABASE_URL"].startswith("postgresql://jo:***@db.test/baton")
    assert shown["BATON_WRITE_KEY"] == "(set)"


async def test_where_nothing_runs_every_part_is_a_finding(tmp_path: Path, free_ports: object) -> None:
    (port,) = free_ports(1)  # type: ignore[operator]
    found = await examine(Settings(data_dir=tmp_path, port=port))
    assert {one.what for one in found if one.state == "wrong"} == {"server", "web", "database", "Temporal"}
