"""Keys are made once, kept where only their owner reads them, and give way to the environment."""

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from serve import keys
from serve.parts import CannotServe
from settings import Settings


def test_keys_are_made_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first = keys.ensure_keys(settings)
    assert keys.ensure_keys(settings) == first
    assert first.secret_key
    assert first.write_key
    assert first.admin_password
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_a_key_of_the_environment_wins(tmp_path: Path) -> None:
    told = Settings(data_dir=tmp_path, write_key=SecretStr("from-outside"))
    assert keys.ensure_keys(told).write_key.get_secret_value() == "from-outside"


def test_no_file_is_made_when_all_keys_are_set(tmp_path: Path) -> None:
    key = SecretStr("set")
    keys.ensure_keys(Settings(data_dir=tmp_path, secret_key=key, write_key=key, admin_password=key))
    assert not (tmp_path / "keys.json").exists()


def test_the_password_counts_as_shown_only_once_it_was(tmp_path: Path) -> None:
    before = keys.ensure_keys(Settings(data_dir=tmp_path))
    assert (made := keys.kept(tmp_path)) is not None
    assert not made.password_shown
    keys.mark_password_shown(tmp_path)
    assert (made := keys.kept(tmp_path)) is not None
    assert made.password_shown
    assert keys.ensure_keys(Settings(data_dir=tmp_path)) == before


def test_keys_do_not_show_in_a_printed_value(tmp_path: Path) -> None:
    settings = keys.ensure_keys(Settings(data_dir=tmp_path))
    assert settings.write_key.get_secret_value() not in repr((settings, keys.kept(tmp_path)))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(CannotServe, match=r"keys\.json cannot be read"):
        keys.ensure_keys(Settings(data_dir=tmp_path))
