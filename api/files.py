"""Files that people write by hand, as the body of a request: YAML or JSON, in UTF-8."""

from typing import Any, Final

from fastapi import Request

from .problems import wrong

FILE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}
"""What OpenAPI is to say of such a body."""


async def text_of(request: Request) -> str:
    """Return the body as text; raises Refused (422) for what is not UTF-8, or what PostgreSQL cannot keep."""
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError:
        raise wrong("body", "is not UTF-8 text") from None
    if "\x00" in text:
        raise wrong("body", "holds a character that is no text")
    return text
