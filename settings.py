"""Every setting of Baton, read from the environment once; no other module reads the environment.

Each setting is an environment variable with the prefix ``BATON_`` and has a default, so that
``baton serve`` runs with none of them set.
"""

import os
import re
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PERIOD: Final = re.compile(r"[a-z_]+=[0-9]{1,5}")


class Settings(BaseSettings):
    """What one Baton server was told; an empty text means "embedded", "made at first start" or "off"."""

    model_config = SettingsConfigDict(env_prefix="BATON_", frozen=True, extra="ignore")

    data_dir: Path = Path("var")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    public_url: str = ""

    database_url: str = ""

    temporal_address: str = ""
    temporal_namespace: str = "default"
    temporal_tls: bool = False
    temporal_api_key: SecretStr = SecretStr("")
    temporal_port: int = Field(default=7233, ge=1, le=65535)
    temporal_ui_port: int = Field(default=8233, ge=1, le=65535)
    temporal_bin: str = ""

    smtp_url: str = ""
    mail_from: str = "Baton <baton@localhost>"

    webhooks_to_private: bool = False
    """Whether webhooks and alerts may go to addresses that are not on the internet."""

    secret_key: SecretStr = SecretStr("")
    admin_email: str = "admin@example.com"
    admin_password: SecretStr = SecretStr("")
    admin_token: SecretStr = SecretStr("")
    write_key: SecretStr = SecretStr("")

    retention: str = ""

    @field_validator("retention")
    @classmethod
    def _periods(cls, text: str) -> str:
        if not all(_PERIOD.fullmatch(part) for part in text.replace(",", " ").split()):
            raise ValueError("write it as rule=days, several with commas between: visitors=200, quarantine=30")
        return text

    @property
    def kept_for(self) -> dict[str, int]:
        """How many days something is kept, by the name of its rule; 0 is for ever."""
        parts = (part.split("=") for part in self.retention.replace(",", " ").split())
        return {name: int(days) for name, days in parts}

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @property
    def url(self) -> str:
        """Where people reach Baton: the public URL if one is set, else the listening address."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        host = f"[{host}]" if ":" in host else host
        return self.public_url.rstrip("/") or f"http://{host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return this process's environment with these settings in it, for the parts that it starts."""
        mine = {
            f"BATON_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in self
        }
        return {**os.environ, **mine}

    @property
    def database_is_embedded(self) -> bool:
        """Whether Baton runs its own PostgreSQL."""
        return not self.database_url

    @property
    def temporal_is_embedded(self) -> bool:
        """Whether Baton runs its own Temporal server."""
        return not self.temporal_address


def load() -> Settings:
    """Read the settings from the environment; raises pydantic's ValidationError, naming each wrong one."""
    return Settings()
