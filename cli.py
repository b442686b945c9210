"""The command line: each command reads its arguments, calls one function, and says what came of it.

Exit codes: 0 fine, 1 something was found wrong, 2 the command was not understood.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import sqlalchemy as sa
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import col, select
from temporalio.client import Client
from temporalio.service import RPCError

import settings as environment
from lifecycle.agreement import Agreement
from lifecycle.backtest import Sheet
from models.session import Sessions
from serve.parts import CannotServe
from settings import Settings

if TYPE_CHECKING:
    from models.outreach import Signer

T = TypeVar("T")
app = typer.Typer(
    help="Baton: the contract between marketing and sales, executed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
agreement = typer.Typer(help="Agreement files.", no_args_is_help=True)
user = typer.Typer(help="People who use Baton.", no_args_is_help=True)
token = typer.Typer(help="API tokens.", no_args_is_help=True)
app.add_typer(agreement, name="agreement")
app.add_typer(user, name="user")
app.add_typer(token, name="token")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@app.command()
def serve() -> None:
    """Serve: PostgreSQL, Temporal, worker and web in one supervised command."""
    from serve import supervisor

    raise typer.Exit(supervisor.run(_settings()))


@app.command()
def worker() -> None:
    """Run the worker alone."""
    from serve.keys import ensure_keys
    from worker import run

    asyncio.run(run(ensure_keys(_settings())))


@app.command()
def web() -> None:
    """Run the web part alone."""
    from api.app import serve_web
    from serve.keys import ensure_keys

    asyncio.run(serve_web(ensure_keys(_settings())))


@app.command()
def demo() -> None:
    """Serve with the sample: agreement signed, leads imported, engagements replayed, reps at work."""
    from ops import demo

    raise typer.Exit(demo.run(_settings(), out))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Any CSV; encoding and separator are found out.")],
    maps: Annotated[list[str] | None, typer.Option("--map", metavar="COLUMN=FIELD", help="May be repeated.")] = None,
    id_column: Annotated[str | None, typer.Option(metavar="NAME", help="Holds the id another system has.")] = None,
    errors: Annotated[Path | None, typer.Option(help="Where goes what cannot be taken.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check, write nothing.")] = False,
) -> None:
    """Import leads from a CSV file; safe to repeat and to kill half-way."""
    from intake.csvfile import UnreadableFile, count_lines
    from intake.importing import import_file
    from intake.mapping import ID, UnknownColumn

    given = dict(_pair(text) for text in maps or ()) | ({id_column: ID} if id_column else {})
    target = errors or file.with_name(f"{file.name}.errors.csv")

    async def work() -> int:
        async with _parts() as parts:
            with _bar("Leads", await asyncio.to_thread(count_lines, file)) as (bars, bar):
                totals = await import_file(
                    parts.make, file, target, given,
                    dry_run=dry_run, progress=lambda line: bars.update(bar, completed=line),
                )  # fmt: skip
                bars.update(bar, completed=bars.tasks[bar].total)
            if not dry_run:
                await _deliver(parts)
        flagged = f"; {totals.flagged:,} leads have a field that could not be taken" if totals.flagged else ""
        out.print(
            f"{totals.rows:,} rows: {totals.created:,} created, {totals.updated:,} updated,"
            f" {totals.unchanged:,} unchanged, {totals.errors:,} errors{flagged}",
            soft_wrap=True,
        )
        if target.exists():
            out.print(f"What could not be taken is in {target}.", soft_wrap=True, markup=False)
        return 1 if totals.errors else 0

    try:
        code = _run(work())
    except UnreadableFile as error:
        raise Failed(str(error)) from None
    except UnknownColumn as error:
        raise Failed(str(error), 2) from None
    raise typer.Exit(code)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE.ndjson[.gz]", help="Segment messages, one a line.")],
    shift: Annotated[bool, typer.Option(help="Move all times so that the last one is now.")] = True,
    url: Annotated[str | None, typer.Option(help="Of the server; by default the one that runs here.")] = None,
    write_key: Annotated[str | None, typer.Option(help="By default this data directory's.")] = None,
) -> None:
    """Replay recorded engagements through the HTTP API; message ids are kept, so it is safe to repeat."""
    from intake.replay import ReplayRefused, read_messages, shift_of
    from intake.replay import replay as send
    from serve import keys
    from serve.addresses import web_url

    given = _settings()
    key = write_key or given.write_key.get_secret_value()
    if not key and url is None and (kept := keys.kept(given.data_dir)):
        key = kept.write_key
    if not key:
        raise Failed("The write key is not known here; give it by --write-key or BATON_WRITE_KEY.", 2)

    async def work() -> int:
        moved = await asyncio.to_thread(shift_of, file) if shift else timedelta(0)
        count = await asyncio.to_thread(lambda: sum(1 for message in read_messages(file) if message))
        with _bar("Engagements", count) as (bars, bar):
            base = (url or web_url(given)).rstrip("/")
            sent = await send(file, base, key, moved, lambda done: bars.advance(bar, done))
        out.print(f"{sent.sent:,} sent, {sent.quarantined:,} quarantined, {sent.bad_lines:,} bad lines")
        return 1 if sent.quarantined or sent.bad_lines else 0

    try:
        code = _run(work())
    except ReplayRefused as error:
        raise Failed(str(error)) from None
    raise typer.Exit(code)


@agreement.command()
def validate(file: Annotated[Path, typer.Argument(help="YAML or JSON.")]) -> None:
    """Check an agreement file and say where it is wrong."""
    from agreements.reader import AgreementInvalid

    try:
        _agreement_in(file)
    except AgreementInvalid as invalid:
        for problem in invalid.problems:
            out.print(str(problem), markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    out.print(f"{file} is a valid agreement.", markup=False, soft_wrap=True)


@agreement.command()
def backtest(
    file: Annotated[Path, typer.Argument(help="The candidate, YAML or JSON.")],
    outcomes: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="What became of leads: email, accepted, sql, outcome.")
    ] = None,
    result_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Where goes the whole result.")
    ] = None,
) -> None:
    """Replay the stored past through an agreement, and say what would have happened."""
    from agreements.reader import AgreementInvalid
    from intake.csvfile import UnreadableFile, read_rows
    from lifecycle.backtest import sheets
    from lifecycle.judging import Fate
    from models.backtest import backtest as replay_past

    async def work() -> int:
        candidate = _agreement_in(file)
        rows = (
            ({name.lower(): cell for name, cell in row.cells.items()} for row in read_rows(outcomes))
            if outcomes
            else ()
        )
        fates = {cells["email"].lower(): Fate.told(cells) for cells in rows if cells.get("email")}
        async with _parts() as parts:
            with _bar("Leads", await _count_leads(parts)) as (bars, bar):
                result = await replay_past(
                    parts.make, candidate, datetime.now(UTC),
                    fates=fates, progress=lambda done: bars.advance(bar, done),
                )  # fmt: skip
        for sheet in sheets(result):
            _print(sheet)
        for note in result.notes:
            out.print(note, markup=False, soft_wrap=True)
        if result_file:
            await asyncio.to_thread(result_file.write_text, result.model_dump_json(indent=2), encoding="utf-8")
        return 0

    try:
        _run(work())
    except AgreementInvalid as invalid:
        for problem in invalid.problems:
            out.print(str(problem), markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except UnreadableFile as error:
        raise Failed(str(error)) from None


def _agreement_in(file: Path) -> Agreement:
    from agreements.reader import read_agreement

    try:
        return read_agreement(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise Failed(f"{file} is not UTF-8 text.") from None
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}.") from None


def _print(sheet: Sheet) -> None:
    table = Table(box=None, pad_edge=False)
    for number, head in enumerate(sheet.columns):
        figures = all(row[number][:1] in "0123456789+-–" for row in sheet.rows)
        table.add_column(Text(head), justify="right" if figures else "left")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    out.print(sheet.title, style="bold", markup=False, soft_wrap=True)
    if sheet.rows:
        out.print(table)
    out.print()


@user.command("add")
def add_user(
    email: str,
    name: Annotated[str, typer.Option()],
    role: Annotated[str, typer.Option(help="rep, manager, marketing, ops or admin")],
    password: Annotated[str | None, typer.Option(help="`-` reads it; none: only tokens let in.")] = None,
) -> None:
    """Add a person."""
    from models import users
    from models.people import normal_email

    if role not in users.ROLES:
        raise Failed(f"There is no role {role}; there are {', '.join(users.ROLES)}.", 2)
    try:
        address = normal_email(email)
    except ValueError as error:
        raise Failed(f"{email} {str(error).rstrip('.')}.", 2) from None
    given = sys.stdin.readline().rstrip("\n") if password == "-" else password  # noqa: S105 - not a password
    if given is not None and len(given) < 8:
        raise Failed("A password has at least 8 characters.", 2)

    async def work() -> int:
        async with _parts() as parts:
            try:
                await users.add_user(parts.make, address, name, role, given)
            except users.UserExists:
                raise Failed(f"{address} is a user already.") from None
        return 0

    _run(work())
    out.print(f"{address} is a user now, as {role}.", markup=False, soft_wrap=True)


@token.command("create")
def create_token(email: str) -> None:
    """Print a new API token of a person; it is shown this once."""
    from models import users

    async def work() -> int:
        async with _parts() as parts:
            async with parts.make() as session:
                found = await users.find_user(session, email)
            if found is None:
                raise Failed(f"There is no user {email}.")
            out.print(await users.create_token(parts.make, found.id, "command line"), soft_wrap=True, markup=False)
        return 0

    _run(work())


@app.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Bring rows and workflows together.")] = False,
) -> None:
    """Compare every lead's row with its workflow."""
    from ops import verify as checks

    async def work() -> int:
        async with _parts() as parts:
            client = await parts.temporal()
            with _bar("Leads", await _count_leads(parts)) as (bars, bar):
                found = await checks.compare(parts.make, client, lambda done: bars.advance(bar, done))
            for difference in found:
                out.print(str(difference), markup=False, soft_wrap=True)
            out.print(f"{len(found):,} differences")
            if found and repair:
                mended = await checks.repair(parts.make, client, {one.lead_id for one in found})
                out.print(f"{mended:,} leads repaired")
                return 0
        return 1 if found else 0

    raise typer.Exit(_run(work()))


@app.command()
def rebuild() -> None:
    """Start every open lead's workflow anew from its row, on an empty Temporal."""
    from ops.rebuild import rebuild as start_all
    from serve.temporal import ensure_search_attributes
    from workflows.schedules import ensure_schedules

    async def work() -> int:
        async with _parts() as parts:
            client = await parts.temporal()
            await ensure_search_attributes(client)
            await ensure_schedules(client)
            with _bar("Leads", await _count_leads(parts)) as (bars, bar):
                started = await start_all(parts.make, client, lambda done: bars.advance(bar, done))
                bars.update(bar, completed=bars.tasks[bar].total)
            await _deliver(parts)
        out.print(f"{started:,} leads have a running workflow")
        return 0

    raise typer.Exit(_run(work()))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="Is written whole or not at all; mode 0600.")],
) -> None:
    """Write all of Baton into one file, while it runs."""
    from ops.backup import CannotBackUp, back_up

    try:
        made = back_up(_settings(), file, datetime.now(UTC))
    except CannotBackUp as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{file} cannot be written: {error.strerror}.") from None
    out.print(f"{made['leads']:,} leads and {made['engagements']:,} engagements are in {file}.", soft_wrap=True)


@app.command()
def restore(file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="What `baton backup` wrote.")]) -> None:
    """Put a backup into an empty data directory (or database); then serve, and rebuild."""
    from ops.backup import CannotBackUp
    from ops.backup import restore as put_back

    try:
        made = put_back(_settings(), file)
    except CannotBackUp as error:
        raise Failed(str(error)) from None
    out.print(f"{made['leads']:,} leads as of {made['made_at']} are back.", soft_wrap=True)
    out.print("Start `baton serve` now, and then `baton rebuild`: it starts the leads' workflows.", soft_wrap=True)


@app.command()
def erase(
    who: Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The lead, by its e-mail address or id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a person: all that is held of them goes, for good; a digest stays, so that no mail is sent to them."""
    from activities.erasing import Erasing
    from models import erasure

    async def work() -> int:
        async with _parts() as parts:
            lead_id = await _lead_named(parts, who)
            if not yes:
                typer.confirm("Erase this person? It cannot be undone.", abort=True)
            erasing = Erasing(parts.make, await parts.temporal(), _signer(parts.settings))
            try:
                row = await erasing.erase(lead_id, None)
            except erasure.PartOfAnother as part:
                raise Failed(f"{part} Erase that one.") from None
            except TimeoutError:
                raise Failed(
                    "The person is gone; Temporal did not answer in time, and the server sees to it."
                ) from None
            if row is None:
                raise Failed("There is no such lead.")
        gone = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in row.counts.items() if count)
        out.print(f"Erased: {gone}.", soft_wrap=True)
        return 0

    raise typer.Exit(_run(work()))


@app.command("export-person")
def export_person(
    who: Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The lead, by its e-mail address or id.")],
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="By default it is printed.")] = None,
) -> None:
    """Give out all that is held on a person, as JSON."""
    import orjson

    from models import erasure

    async def work() -> int:
        async with _parts() as parts:
            lead_id = await _lead_named(parts, who)
            async with parts.make() as session:
                found = await erasure.export(session, lead_id, _signer(parts.settings))
        if found is None:
            raise Failed("There is no such lead.")
        text = orjson.dumps(found.as_json(datetime.now(UTC)), option=orjson.OPT_INDENT_2).decode()
        if file:
            await asyncio.to_thread(file.write_text, text, encoding="utf-8")
        else:
            sys.stdout.write(f"{text}\n")
        return 0

    raise typer.Exit(_run(work()))


@app.command()
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print how many rows would go; change nothing.")] = False,
) -> None:
    """Forget what is kept too long; a running server does it each night."""
    from models import retention as kept
    from models.session import in_transaction

    async def work() -> int:
        async with _parts() as parts:
            now, periods = datetime.now(UTC), _periods(parts.settings)
            found = await kept.counts(parts.make, now, periods)
            table = Table("rule", "days", Column("rows", justify="right"), "what goes", box=None, pad_edge=False)
            for rule in kept.RULES:
                days = periods.get(rule.name, rule.days)
                table.add_row(rule.name, str(days or "for ever"), f"{found[rule.name]:,}", rule.says)
            out.print(table)
            if dry_run:
                return 0
            with _bar("Rows", sum(found.values())) as (bars, bar):
                for rule in kept.RULES:
                    if before := rule.before(now, periods):
                        forget = partial(kept.forget, rule=rule, before=before)
                        while done := await in_transaction(parts.make, forget):
                            bars.advance(bar, done)
        return 0

    raise typer.Exit(_run(work()))


@app.command()
def scrub() -> None:
    """Take out of PostgreSQL's files what was deleted and still stands there; locks each table meanwhile."""
    from models.session import make_engine
    from ops.scrub import scrub as rewrite
    from ops.scrub import steps
    from serve.addresses import database_url

    async def work() -> int:
        engine = make_engine(database_url(_settings()))
        try:
            with _bar("Tables", steps()) as (bars, bar):
                refused = await rewrite(engine, lambda done: bars.advance(bar, done))
        finally:
            await engine.dispose()
        for what in refused:
            out.print(f"The database does not let Baton rewrite {what}; its administrator can.", soft_wrap=True)
        return 1 if refused else 0

    raise typer.Exit(_run(work()))


def _periods(given: Settings) -> dict[str, int]:
    from models.retention import unknown

    if wrong := unknown(given.kept_for):
        raise Failed(f"BATON_RETENTION: there is no rule {', '.join(sorted(wrong))}.", 2)
    return given.kept_for


def _signer(given: Settings) -> "Signer":
    """Return what makes the digests of this server; without its key an erased person would not be known again."""
    from models.outreach import Signer
    from serve import keys

    secret = given.secret_key.get_secret_value()
    if not secret and (kept := keys.kept(given.data_dir)):
        secret = kept.secret_key
    if not secret:
        raise Failed("The server's secret key is not known here; give it by BATON_SECRET_KEY or BATON_DATA_DIR.", 2)
    return Signer(secret.encode())


async def _lead_named(parts: "Parts", who: str) -> UUID:
    """Return the id of a lead; one that was erased already is known by its id, so that a repetition completes it."""
    from models import erasure

    async with parts.make() as session:
        found = await erasure.find(session, who)
        if found is None and _is_id(who) and await erasure.erasure_of(session, UUID(who), _signer(parts.settings)):
            return UUID(who)
    if found is None:
        raise Failed("There is no such lead.")
    return found


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


@app.command()
def doctor() -> None:
    """Say what runs where, in which version, and what is wrong."""
    from ops.doctor import examine, settings_shown

    given = _settings()
    signs = {"fine": "ok", "note": "--", "wrong": "!!"}
    found = _run_for(examine(given))
    for finding in found:
        out.print(f"{signs[finding.state]}  {finding.what:<11} {finding.said}", markup=False, soft_wrap=True)
    out.print()
    for name, value in settings_shown(given).items():
        out.print(f"    {name:<26} {value}", markup=False, soft_wrap=True)
    raise typer.Exit(1 if any(finding.state == "wrong" for finding in found) else 0)


class Failed(Exception):
    """The command ends here, with a sentence for whoever gave it; `code` is 1, or 2 for a wrong argument."""

    def __init__(self, said: str, code: int = 1) -> None:
        super().__init__(said)
        self.code = code


@dataclass(slots=True)
class Parts:
    """The ways of one command to the running server; Temporal is connected to when it is needed."""

    settings: Settings
    make: Sessions

    async def temporal(self, within: float = 10.0) -> Client:
        """Return a client; raises CannotServe."""
        from serve.temporal import connect

        return await connect(self.settings, within=within)


@asynccontextmanager
async def _parts() -> AsyncIterator[Parts]:
    from models.session import make_engine, sessions
    from serve.addresses import database_url

    given = _settings()
    engine = make_engine(database_url(given), pool_size=4)
    try:
        yield Parts(given, sessions(engine))
    finally:
        await engine.dispose()


async def _deliver(parts: Parts) -> None:
    """Deliver the outbox; without Temporal it waits there, and the next server delivers it."""
    from activities.outbox import Outbox
    from models.tables import OutboxMoment
    from workflows.names import TASK_QUEUE

    undelivered = col(OutboxMoment.delivered_at).is_(None)

    async def waiting() -> int:
        async with parts.make() as session:
            query = select(sa.func.count()).select_from(OutboxMoment).where(undelivered)
            return (await session.exec(query)).one()

    if not (total := await waiting()):
        return
    try:
        outbox = Outbox(parts.make, await parts.temporal(), TASK_QUEUE)
        with _bar("Moments", total) as (bars, bar):
            delivery = asyncio.create_task(outbox.deliver())
            while not (await asyncio.wait({delivery}, timeout=0.5))[0]:
                bars.update(bar, completed=total - await waiting())
            await delivery
            bars.update(bar, completed=total)
    except (CannotServe, RPCError) as error:
        err.print(f"Moments wait in the outbox: {error}", markup=False, soft_wrap=True)


async def _count_leads(parts: Parts) -> int:
    from models.tables import Lead

    async with parts.make() as session:
        return (await session.exec(select(sa.func.count()).select_from(Lead))).one()


@contextmanager
def _bar(what: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        yield bars, bars.add_task(what, total=total)


def _settings() -> Settings:
    try:
        return environment.load()
    except ValidationError as error:
        first = error.errors()[0]
        raise Failed(f"BATON_{str(first['loc'][0]).upper()}: {first['msg']}.", 2) from None


def _pair(text: str) -> tuple[str, str]:
    column, equals, field = text.rpartition("=")
    if not equals or not column or not re.fullmatch(r"[a-z][a-z0-9_]{0,59}", field):
        raise Failed(f"--map {text}: write it as COLUMN=field, with the field in snake_case.", 2)
    return column, field


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's work; what a person can do something about is one sentence."""
    try:
        return _run_for(work)
    except FileNotFoundError as error:
        raise Failed(f"There is no file {error.filename}.") from None
    except OSError as error:
        raise Failed(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.") from None
    except DBAPIError as error:
        if not error.connection_invalidated and not isinstance(error, OperationalError):
            raise
        raise Failed("The database is out of reach; `baton doctor` says more. Repeat the command then.") from None
    except RPCError as error:
        raise Failed(f"Temporal did not answer ({error.status.name}); repeat the command.") from None


def _run_for(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def main() -> None:
    """Run the command line; an expected failure is one sentence on standard error."""
    try:
        app()
    except Failed as failed:
        _end(failed.code, str(failed))
    except CannotServe as error:
        _end(1, str(error))
    except KeyboardInterrupt:
        _end(130, "stopped")
    except SystemExit as done:
        _end(done.code if isinstance(done.code, int) else 0 if done.code is None else 1)


def _end(code: int, said: str = "") -> NoReturn:
    """Leave with that code; past the interpreter's farewell, which threads of Temporal's SDK abort now and then."""
    if said:
        err.print(f"baton: {said}", markup=False, soft_wrap=True)
    if "temporalio" not in sys.modules:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
