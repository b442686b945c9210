"""Taking all of Baton along in one file, and putting it back elsewhere.

A backup is a tar of the database as one moment saw it (`pg_dump`), the keys, and what made it. Temporal's file is not
in it: each row keeps its workflow's whole state, and `baton rebuild` puts the workflows on an empty Temporal.
"""

import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import make_url

from serve import datadir, keys, migrate
from serve.addresses import database_url
from serve.embedded import EmbeddedPostgres, postgres_bin
from settings import Settings

MANIFEST: Final = "manifest.json"
DATABASE: Final = "database.dump"
KEYS: Final = "keys.json"
_PRIVATE: Final = 0o600


class CannotBackUp(Exception):
    """The backup cannot be made, read or put back; the message says why, and nothing was half done."""


def back_up(settings: Settings, file: Path, at: datetime) -> dict[str, Any]:
    """Write a backup of the running server to `file`, whole or not at all; return its manifest.

    Writing goes on meanwhile: what was committed when it began is in it. The file holds personal data and keys, and
    only its owner can read it. Raises CannotBackUp, and CannotServe when no database is there.
    """
    url = _libpq(database_url(settings))
    with _draft(file) as (draft, folder):
        dump = folder / DATABASE
        with _one_moment(url) as (snapshot, content):
            options = ("--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}")
            _program("pg_dump", url, *options, f"--file={dump}")
        manifest = {"baton": version("baton"), "made_at": at.isoformat(), **content}
        with tarfile.open(draft, "w") as archive:
            _add(archive, MANIFEST, json.dumps(manifest, indent=2).encode(), at)
            if (kept := settings.data_dir / KEYS).exists():
                _add(archive, KEYS, kept.read_bytes(), at)
            archive.add(dump, DATABASE, filter=_private)
    return manifest


def restore(settings: Settings, file: Path) -> dict[str, Any]:
    """Put a backup into an empty database and the data directory; return its manifest.

    With an embedded database no server may run on the data directory. Raises CannotBackUp: for a file that is no
    backup, a database that is not empty, a newer schema than this Baton knows.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest, taken = _unpack(file, Path(folder))
        if manifest["schema"] not in migrate.revisions():
            raise CannotBackUp(f"A newer Baton made this backup: its schema {manifest['schema']} is not known here.")
        with _empty_database(settings) as url:
            _program(
                "pg_restore", url, "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction",
                str(Path(folder) / DATABASE),
            )  # fmt: skip
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE")
        if taken:
            keys.put(settings.data_dir, taken)
    return manifest


@contextmanager
def _empty_database(settings: Settings) -> Iterator[str]:
    """The database that a backup goes into, running: one without tables."""
    if not settings.database_is_embedded:
        url = _libpq(database_url(settings))
        _refuse_full(url)
        yield url
        return
    with datadir.held(settings.data_dir):
        server = EmbeddedPostgres(settings.data_dir).start()
        try:
            url = _libpq(server.url)
            _refuse_full(url)
            yield url
        finally:
            server.stop()


def _refuse_full(url: str) -> None:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    with psycopg.connect(url) as connection:
        [(tables,)] = connection.execute(query).fetchall()
    if tables:
        raise CannotBackUp(f"The database holds {tables} tables; a backup goes only into an empty one.")


@contextmanager
def _one_moment(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The database as it is at one moment: the snapshot by which others see it too, and what is in it."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        [(snapshot, schema, leads, engagements)] = connection.execute(
            "SELECT pg_export_snapshot(), (SELECT version_num FROM alembic_version), (SELECT count(*) FROM leads),"
            " (SELECT count(*) FROM engagements)"
        ).fetchall()
        version_ = connection.info.server_version // 10_000
        yield snapshot, {"schema": schema, "postgresql": version_, "leads": leads, "engagements": engagements}


def _unpack(file: Path, folder: Path) -> tuple[dict[str, Any], keys.Keys | None]:
    try:
        with tarfile.open(file) as archive:
            for member in archive.getmembers():
                if member.name in (MANIFEST, DATABASE, KEYS) and member.isfile():
                    archive.extract(member, folder, filter="data")
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        taken = keys.read((folder / KEYS).read_text()) if (folder / KEYS).exists() else None
    except FileNotFoundError as error:
        absent = Path(error.filename or "") == file
        raise CannotBackUp(f"There is no file {file}." if absent else NO_BACKUP) from None
    except (tarfile.TarError, ValueError, TypeError, EOFError):
        raise CannotBackUp(NO_BACKUP) from None
    if not (folder / DATABASE).exists() or not isinstance(manifest.get("schema"), str):
        raise CannotBackUp(NO_BACKUP)
    return manifest, taken


NO_BACKUP: Final = "The file is no backup, or not all of one."


@contextmanager
def _draft(file: Path) -> Iterator[tuple[Path, Path]]:
    """A file beside the one that is wanted, which takes its place once it is whole; and a folder to work in."""
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".backup-") as folder:
        draft = Path(folder) / "backup.tar"
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
        yield draft, Path(folder)
        draft.replace(file)


def _add(archive: tarfile.TarFile, name: str, content: bytes, at: datetime) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), _PRIVATE, int(at.timestamp())
    archive.addfile(member, io.BytesIO(content))


def _private(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode, member.uname, member.gname, member.uid, member.gid = _PRIVATE, "", "", 0, 0
    return member


def _libpq(url: str) -> str:
    """Return a SQLAlchemy URL as the programs of PostgreSQL read it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _program(name: str, url: str, *options: str) -> None:
    """Run a program of PostgreSQL; the password goes by the environment, where a list of processes does not show it."""
    known: Mapping[str, Any] = conninfo_to_dict(url)
    named = make_conninfo(**{key: value for key, value in known.items() if key != "password"})
    secret = {"PGPASSWORD": str(known["password"])} if known.get("password") else {}
    done = subprocess.run(
        [str(postgres_bin() / name), f"--dbname={named}", *options],
        env={**os.environ, **secret}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise CannotBackUp(
            f"{name} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no word'}"
        )
