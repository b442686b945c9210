"""Lists as files that people take along: CSV that a spreadsheet opens safely."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fastapi.responses import Response, StreamingResponse

_CSV: Final = "text/csv; charset=utf-8"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def sheet(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Response:
    """Return a file with these columns of the rows; cells are text, and none is taken for a formula."""
    return Response(_head(columns) + _lines(columns, rows), headers=_named(name), media_type=_CSV)


def streamed(name: str, columns: Sequence[str], parts: AsyncIterator[Iterable[Mapping[str, Any]]]) -> Response:
    """Return such a file part by part, as it is read: a long list is never held whole."""

    async def text() -> AsyncIterator[str]:
        yield _head(columns)
        async for rows in parts:
            yield _lines(columns, rows)

    return StreamingResponse(text(), headers=_named(name), media_type=_CSV)


def _head(columns: Sequence[str]) -> str:
    return _lines(columns, [{column: column for column in columns}])


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return file.getvalue()


def _named(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _cell(value: Any) -> str:
    """Return a value as text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
