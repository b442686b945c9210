"""A backup is made while people work and clients write; put back elsewhere, it goes on from there."""

import json
import tarfile
import threading
from pathlib import Path
from uuid import uuid4

from tests.faults.house import House
from tests.faults.test_rebuild import standing

MANY = 150


def test_a_backup_made_while_writing_is_whole_and_goes_on_elsewhere(house: House, tmp_path: Path) -> None:
    waiting = house.arrive(f"{uuid4().hex[:8]}@acme.test")
    working = house.arrive(f"{uuid4().hex[:8]}@acme.test")
    house.post(f"/api/leads/{working}/accept")
    house.settle()
    before = {lead: standing(house, lead) for lead in (waiting, working)}
    [(counted,)] = house.rows("SELECT count(*) FROM engagements")

    file, writing = tmp_path / "baton.tar", threading.Event()

    def write() -> None:
        for number in range(MANY):
            house.send({"type": "track", "userId": f"w{number}@acme.test", "event": "Page Viewed"})
            writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    writing.wait()
    made = house.command("backup", str(file))
    writer.join()
    assert made.returncode == 0, made.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        content = archive.extractfile("manifest.json")
        assert content is not None
        manifest = json.load(content)
    [(in_the_end,)] = house.rows("SELECT count(*) FROM engagements")
    assert counted < manifest["engagements"] <= in_the_end

    elsewhere = House(tmp_path / "elsewhere")
    restored = elsewhere.command("restore", str(file))
    assert restored.returncode == 0, restored.stderr
    again = elsewhere.command("restore", str(file))
    assert again.returncode == 1 and "only into an empty one" in again.stderr
    try:
        elsewhere.start()
        assert elsewhere.command("rebuild").returncode == 0
        elsewhere.settle()
        [(kept,)] = elsewhere.rows("SELECT count(*) FROM engagements")
        assert kept == manifest["engagements"]
        assert {lead: standing(elsewhere, lead) for lead in before} == before
        assert elsewhere.post(f"/api/leads/{waiting}/accept")["stage"] == "sal"
        verified = elsewhere.command("verify")
        assert verified.stdout == "0 differences\n", verified.stdout
    finally:
        elsewhere.stop()
        elsewhere.http.close()


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path / "data")
    nonsense, empty = tmp_path / "nonsense.tar", tmp_path / "empty.tar"
    nonsense.write_bytes(b"no tar at all")
    tarfile.open(empty, "w").close()
    for file, why in ((nonsense, "no backup"), (empty, "no backup"), (tmp_path / "missing.tar", "There is no file")):
        refused = house.command("restore", str(file))
        assert refused.returncode == 1 and why in refused.stderr, refused.stderr
    assert house.command("backup", str(tmp_path / "none.tar")).returncode == 1  # no server runs
    assert not (tmp_path / "none.tar").exists()
