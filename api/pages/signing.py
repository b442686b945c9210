"""Signing in and out: the only forms that work without JavaScript, so that everything can be read without it."""

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from models.web_sessions import LONGEST, TooManyTries, sign_in, sign_out

from ..auth import authenticate, cookie_name, require_same_origin, session_token
from ..house import House, house
from ..problems import Refused
from .frame import HOME, PageRoute, render, span

router = APIRouter(include_in_schema=False, route_class=PageRoute)
FIELD: Final = 1_024
"""Characters that a field of the form may hold."""


@router.get("/sign-in")
async def ask(request: Request, next: str = "") -> Response:  # noqa: A002 - the field's usual name
    """Show the form, or send on whoever is signed in."""
    try:
        viewer = await authenticate(request)
    except Refused:
        return render(request, "sign_in.html", next=next, email="", problem=None)
    return RedirectResponse(_own_path(next) or HOME[viewer.role], 303)


@router.post("/sign-in")
async def enter(
    request: Request,
    email: Annotated[str, Form(max_length=FIELD)] = "",
    password: Annotated[str, Form(max_length=FIELD)] = "",
    next: Annotated[str, Form(max_length=4_096)] = "",  # noqa: A002
) -> Response:
    """Sign in; whoever was signed in with this browser is signed out."""
    require_same_origin(request)
    home, client = house(request), request.client
    address, agent = (client.host if client else ""), request.headers.get("user-agent", "")
    problem, status = "E-mail address and password do not belong together.", 401
    token = None
    try:
        token = await sign_in(home.make, email, password, address=address, agent=agent, at=datetime.now(UTC))
    except TooManyTries as refused:
        problem, status = f"Too many tries. Try again in {span(refused.wait)}.", 429
    if token is None:
        return render(request, "sign_in.html", status=status, next=next, email=email, problem=problem)
    await _forget(home, request)
    response = RedirectResponse(_own_path(next) or "/", 303)
    name = cookie_name(home.settings)
    response.set_cookie(
        name, token, max_age=int(LONGEST.total_seconds()), path="/", httponly=True, samesite="lax",
        secure=name.startswith("__Host-"),
    )  # fmt: skip
    return response


@router.post("/sign-out")
async def leave(request: Request) -> Response:
    """Sign out; the session's token is worth nothing from then on."""
    require_same_origin(request)
    home = house(request)
    await _forget(home, request)
    response = RedirectResponse("/sign-in", 303)
    name = cookie_name(home.settings)
    response.delete_cookie(name, path="/", httponly=True, samesite="lax", secure=name.startswith("__Host-"))
    return response


async def _forget(home: House, request: Request) -> None:
    if token := session_token(request):
        await sign_out(home.make, token)


def _own_path(path: str) -> str:
    """Return `path` if it is one of ours: one that could lead to another host is no path."""
    own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if own and "\\" not in path else ""
