"""The disk is full: engagements are refused for now, nothing is kept by halves, and it goes on when there is room."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.faults.house import House, serving, until
from tests.faults.outage import Clients, account
from tests.faults.tally import Tally

SIZE: Final = 400
"""MB of the small disk; a new Baton takes about 100."""


@contextmanager
def a_small_disk(place: Path) -> Iterator[Path]:
    """Mount a disk of its own in memory, or skip where that is not allowed."""
    place.mkdir()
    disk = ("-t", "tmpfs", "-o", f"size={SIZE}m,mode=0755", "baton-test", str(place))
    mounted = subprocess.run([shutil.which("mount") or "mount", *disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a disk of its own cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run([shutil.which("umount") or "umount", "--lazy", str(place)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk to its last byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 65_536)
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 512)
    try:
        yield
    finally:
        ballast.unlink()


async def endure(house: House, disk: Path, *, seconds: float) -> None:
    """Fill the disk while clients send and decide, and make room again."""
    tally = Tally(f"disk full for {seconds:.0f} s", rounds=1)
    leads = [await asyncio.to_thread(house.arrive, f"disk{number}@full.test") for number in range(3)]
    newcomers: list[str] = []
    clients = Clients(house)
    wide = {"type": "page", "userId": "wide@full.test", "properties": {"path": "/", "text": os.urandom(12_000).hex()}}
    try:
        async with asyncio.TaskGroup() as work:
            with full(disk):
                began = time.monotonic()
                for _ in range(6):  # wide ones, which no page that is there already has room for
                    work.create_task(clients.send(*[wide] * 15))
                house.kill("worker")  # and starts again, without room for a note of it
                for lead in leads:
                    work.create_task(clients.decide(lead, "accept"))
                while time.monotonic() - began < seconds or not clients.ingest.by_status[503]:
                    newcomers.append(f"new{len(newcomers)}@full.test")
                    work.create_task(clients.arrive(newcomers[-1]))
                    await asyncio.sleep(0.5)
                    assert time.monotonic() - began < seconds + 60, "the disk was never full"
            ended = time.monotonic()
            await clients.send({"type": "page", "userId": "wide@full.test", "properties": {"path": "/back"}})
            tally.recovery.append(time.monotonic() - ended)
    finally:
        await clients.close()
    assert set(clients.ingest.by_status) == {200, 503}, clients.ingest.by_status
    assert clients.ingest.without_retry + clients.decisions.without_retry == []
    tally.operations = len(clients.accepted) + len(leads)
    tally.also = f"{clients.ingest.by_status[503]} batches were refused for now"
    account(house, clients, leads, newcomers, tally)
    verified = house.command("verify")
    assert (verified.returncode, verified.stdout) == (0, "0 differences\n"), verified.stdout
    tally.hold()


async def run(place: Path, seconds: float) -> None:
    """Serve on a small disk, and fill it."""
    with a_small_disk(place / "disk") as disk, serving(disk / "var") as house:
        await endure(house, disk, seconds=seconds)
        # the house's own files are whole as well: it starts again
        house.stop()
        house.start()
        until(lambda: house.http.get("/readyz").status_code == 200)


async def test_nothing_is_kept_by_halves_while_the_disk_is_full(tmp_path: Path) -> None:
    await run(tmp_path, 4)


@pytest.mark.faults
async def test_nothing_is_kept_by_halves_while_the_disk_is_full_for_a_minute(tmp_path: Path) -> None:
    await run(tmp_path, 60)
