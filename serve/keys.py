"""The keys of one server: made once, kept in `keys.json` (mode 0600) of its data directory.

A key that is set in the environment wins over the kept one.
"""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from serve.parts import CannotServe
from settings import Settings

_LEGIBLE: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is mistaken for another when typed


@dataclass(frozen=True, slots=True)
class Keys:
    """What was made for one data directory."""

    secret_key: str = field(repr=False)
    write_key: str = field(repr=False)
    admin_password: str = field(repr=False)
    password_shown: bool = False
    """Whether a start has got far enough to print the password."""


def ensure_keys(settings: Settings) -> Settings:
    """Return the settings with each missing key filled in; makes and keeps keys at the first call.

    Raises CannotServe when the keys cannot be kept or read.
    """
    if settings.secret_key and settings.write_key and settings.admin_password:
        return settings
    keys = kept(settings.data_dir) or _make(settings.data_dir)
    return settings.model_copy(
        update={
            name: SecretStr(getattr(keys, name))
            for name in ("secret_key", "write_key", "admin_password")
            if not getattr(settings, name)
        }
    )


def kept(data_dir: Path) -> Keys | None:
    """Return the keys of a data directory, or None when none were made there yet."""
    path = data_dir / "keys.json"
    try:
        return read(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise CannotServe(
            f"The keys in {path} cannot be read ({error}); restore the file, or remove it to get new ones"
            " (sessions end and the write key changes)."
        ) from error


def mark_password_shown(data_dir: Path) -> None:
    """Remember that the made password was printed, so that no later start prints it."""
    keys = kept(data_dir)
    if keys is not None and not keys.password_shown:
        _write(data_dir, replace(keys, password_shown=True))


def read(text: str) -> Keys:
    """Return the keys that a `keys.json` holds; raises ValueError or TypeError when they are none."""
    return Keys(**json.loads(text))


def put(data_dir: Path, keys: Keys) -> None:
    """Keep these as the keys of a data directory; raises CannotServe."""
    _write(data_dir, keys)


def _make(data_dir: Path) -> Keys:
    keys = Keys(
        secret_key=secrets.token_urlsafe(32),
        write_key=secrets.token_hex(16),
        admin_password="-".join("".join(secrets.choice(_LEGIBLE) for _ in range(5)) for _ in range(4)),
    )
    _write(data_dir, keys)
    return keys


def _write(data_dir: Path, keys: Keys) -> None:
    """Write the file whole or not at all, and never readable by others, not even for a moment."""
    draft = data_dir / f".keys.{os.getpid()}"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(keys), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(data_dir / "keys.json")
    except OSError as error:
        raise CannotServe(
            f"The keys cannot be kept in {data_dir} ({error.strerror}); set BATON_DATA_DIR to a directory"
            " that can be written."
        ) from error
