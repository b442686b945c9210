"""Run the revisions in one transaction, one process at a time."""

import zlib
from typing import Final

from alembic import context
from sqlalchemy import create_engine, pool, text
from sqlmodel import SQLModel

import models.tables  # noqa: F401 - importing it fills SQLModel.metadata

_LOCK: Final = zlib.crc32(b"baton migrations")  # any number will do, as long as all processes use the same


def _migrate() -> None:
    engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=SQLModel.metadata,
            compare_type=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            context.run_migrations()


_migrate()
