"""Online users over HTTP, as JSON.

    GET    /health                        is it there
    GET    /model                         what a display may hold
    POST   /users                         a new user; no body, or {}
    POST   /users/USER/probabilities      {"items": […], "context": {…}, "fields": {…}}
    POST   /users/USER/choice             {"item": "i3"}, or null for no click
    POST   /users/USER/action             {"item": "i3", "action": "cart", "fields": {…}}
    DELETE /users/USER                    forget the user

A display's answer names in `unknown` the items that training never displayed.
What a client does wrong is answered by a status from 400 to 499 and {"error": "…"}: the rule, the
values, the cure."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fastgaum import __version__
from fastgaum.errors import ConfigError, FastgaumError, ServiceError
from fastgaum.models.online_model import OnlineModel
from fastgaum.serve.users import LIMITS, Limits, ServedUsers

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MOST_BYTES = 1 << 20
"""bytes of a request's body"""
BODY_SECONDS = 10.0
"""in which a request's body has to come"""
STOP_SECONDS = 3
"""that requests at hand have to end when the service is stopped"""
MOST_CONNECTIONS = 1_000
"""clients at a time; the next is answered by 503"""
Value = str | int | float | bool | None


class DisplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked of a display."""

    items: list[str | int]
    context: dict[str, Value] | None = None
    fields: dict[str, list[Value]] | None = None


class ChoiceBody(msgspec.Struct, forbid_unknown_fields=True):
    """What was chosen of it; null for no click."""

    item: str | int | None


class UserBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is said of a new user: nothing."""


class ActionBody(msgspec.Struct, forbid_unknown_fields=True):
    """What the user did between two displays."""

    item: str | int
    action: str
    fields: dict[str, Value] | None = None


Body = TypeVar("Body", DisplayBody, ChoiceBody, ActionBody, UserBody)


async def _received(request: Request) -> bytes:
    """The bytes of a request's body. Raises ServiceError where they are too many, or do not
    come."""
    from starlette.requests import ClientDisconnect

    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    raise ServiceError(
                        f"a body has at most {MOST_BYTES} bytes: ask for fewer items", 413
                    )
    except TimeoutError:
        raise ServiceError(
            f"a body has to come within {BODY_SECONDS:g} seconds, got {len(data)} bytes: send it "
            "whole",
            408,
        ) from None
    except ClientDisconnect:
        # this answer has no reader, but an unhandled error would be a traceback of the service
        raise ServiceError("the client left before its body was whole", 400) from None
    except asyncio.CancelledError:
        raise ServiceError("the service ends: ask another one", 503) from None
    return bytes(data)


async def _body(request: Request, kind: type[Body]) -> Body:
    """The body of a request, checked. Raises ServiceError for a wrong one."""
    wanted = request.headers.get("content-type", "").partition(";")[0].strip()
    if wanted != "application/json":
        raise ServiceError(
            f"a body is application/json, got {wanted or 'none'}: set the header content-type", 415
        )
    data = await _received(request)
    if not data and kind is UserBody:
        data = b"{}"
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        keys = ", ".join(kind.__struct_fields__) or "no keys"
        raise ServiceError(f"the body is a JSON object of {keys}: {error}", 400) from None


def http_app(model: OnlineModel, limits: Limits = LIMITS) -> Starlette:
    """A Starlette application that serves a model's online users.

    Args:
        model: the folded model.
        limits: what clients may have.

    Raises:
        ConfigError: Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError:
        raise _lacking("starlette") from None
    # names that cannot be guessed: a client that outlived the service meets no other client's user
    users = ServedUsers(model, limits, name=lambda _: secrets.token_urlsafe(9))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "users": len(users)})

    async def about(request: Request) -> Response:
        fields = {name: "numbers" if of.rows is None else "categories" for name, of in fields_of}
        return JSONResponse(
            {
                "n_items": len(model.item_ids),
                "head": model.head,
                "no_click": model.outside,
                "context": dict(model.context_fields),
                "fields": fields,
                "actions": list(model.kind_rows),
                "fields_known_of_items": sorted(model.of_items),
                "most_items": limits.items,
                "most_users": limits.users,
            }
        )

    fields_of = model.fields.items()

    async def new(request: Request) -> Response:
        # a page in a browser can send other types to an address that it may not read
        await _body(request, UserBody)
        return JSONResponse({"user": users.new()}, 201)

    async def probabilities(request: Request) -> Response:
        name = request.path_params["user"]
        users.find(name)
        asked = await _body(request, DisplayBody)
        shares = users.probabilities(name, asked.items, asked.context, asked.fields).tolist()
        n = len(asked.items)
        none = shares[n] if model.outside else None
        return JSONResponse(
            {
                "items": asked.items,
                "probabilities": shares[:n],
                "no_click": none,
                "unknown": model.unknown(asked.items),
            }
        )

    async def choice(request: Request) -> Response:
        name = request.path_params["user"]
        users.find(name)
        item = (await _body(request, ChoiceBody)).item
        return JSONResponse({"choices": users.chose(name, item)})

    async def action(request: Request) -> Response:
        user = users.find(request.path_params["user"])
        told = await _body(request, ActionBody)
        user.acted(told.item, told.action, told.fields)
        return JSONResponse({"choices": user.n_events})

    async def end(request: Request) -> Response:
        users.end(request.path_params["user"])
        return JSONResponse({"users": len(users)})

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, ServiceError) else 400
        return JSONResponse({"error": str(error)}, status)

    async def no_such_path(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        says = f"{request.method} {request.url.path}: {error.detail}; GET /model, POST /users, …"
        return JSONResponse({"error": says}, error.status_code, headers=error.headers)

    of_user: list[tuple[str, Callable[[Request], Awaitable[Response]], str]] = [
        ("/users/{user}/probabilities", probabilities, "POST"),
        ("/users/{user}/choice", choice, "POST"),
        ("/users/{user}/action", action, "POST"),
        ("/users/{user}", end, "DELETE"),
    ]
    routes = [
        Route("/health", health),
        Route("/model", about),
        Route("/users", new, methods=["POST"]),
        *(Route(path, endpoint, methods=[method]) for path, endpoint, method in of_user),
    ]
    users.warm()
    handlers: dict[Any, Any] = {FastgaumError: refused, HTTPException: no_such_path}
    return Starlette(routes=routes, exception_handlers=handlers)


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ConfigError where there can be none."""
    if not 0 <= port <= 65_535:
        raise ConfigError(f"a port is from 0 (any free one) to 65535, got {port}")
    try:
        # asked first: `create_server` leaves a socket open where a host cannot be a name
        socket.getaddrinfo(host, port)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (TypeError, ValueError, socket.gaierror):
        raise ConfigError(
            f"host is {host!r}, which is no address and no name of this machine: give one such as "
            "127.0.0.1 or localhost"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another "
            "port, or 0 for a free one"
        ) from None


def run_http(app: Starlette, listening: socket.socket) -> None:
    """Answer requests until a signal ends it. Raises ConfigError if uvicorn is not installed."""
    try:
        import uvicorn
    except ImportError:
        raise _lacking("uvicorn") from None
    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _lacking(package: str) -> ConfigError:
    return ConfigError(
        f"a service needs {package}, which is not installed: pip install 'fastgaum[serve]'"
    )
