"""Where the database, Temporal and the web part are, for every command other than `baton serve`.

An address that is set wins; else the server that runs on the data directory says where its parts are.
"""

from serve import datadir
from serve.parts import CannotServe, NotRunning
from settings import Settings

__all__ = ["NotRunning", "database_url", "temporal_address", "web_url"]


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the database, `postgresql+psycopg://…`.

    Raises NotRunning when it is embedded and no server runs, CannotServe when the setting names another
    kind of database.
    """
    if settings.database_is_embedded:
        return _announced(settings, "database_url", "BATON_DATABASE_URL")
    scheme, separator, rest = settings.database_url.partition("://")
    if not separator or scheme.partition("+")[0] not in {"postgres", "postgresql"}:
        raise CannotServe("BATON_DATABASE_URL must be the URL of a PostgreSQL database (postgresql://…).")
    return f"postgresql+psycopg://{rest}"


def temporal_address(settings: Settings) -> str:
    """Return `host:port` of Temporal; raises NotRunning when it is embedded and no server runs."""
    if settings.temporal_is_embedded:
        return _announced(settings, "temporal_address", "BATON_TEMPORAL_ADDRESS")
    return settings.temporal_address


def web_url(settings: Settings) -> str:
    """Return the base URL of the running web part, or where the settings say that it would be."""
    return (datadir.addresses(settings.data_dir) or {}).get("url") or settings.url


def _announced(settings: Settings, name: str, variable: str) -> str:
    announced = datadir.addresses(settings.data_dir)
    if announced is None or name not in announced:
        raise NotRunning(
            f"No Baton runs on the data directory {settings.data_dir}; start one with `baton serve`,"
            f" or set BATON_DATA_DIR to the directory of a running one, or {variable}."
        )
    return announced[name]
