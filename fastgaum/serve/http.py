"""Online users over HTTP, as JSON.

    GET    /health                        is it there
    GET    /model                         what a display may hold
    POST   /users                         a new user; the body is {}
    POST   /users/USER/probabilities      {"items": […], "context": {…}, "fields": {…}}
    POST   /users/USER/choice             {"item": "i3"}, or null for no click
    POST   /users/USER/action             {"item": "i3", "action": "cart", "fields": {…}}
    DELETE /users/USER                    forget the user

A client's mistake is answered by a status from 400 to 499 and {"error": "…"}. One thread answers
all: a display takes less than 100 µs."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fastgaum import __version__
from fastgaum.errors import FastgaumError
from fastgaum.live_users.online import OnlineModel, OnlineUser

MOST_BODY = 1 << 20
"""bytes of a request's body"""
Value = str | int | float | bool | None


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Display(_Nothing):
    items: list[str | int]
    context: dict[str, Value] | None = None
    fields: dict[str, list[Value]] | None = None


class _Choice(_Nothing):
    item: str | int | None


class _Action(_Nothing):
    item: str | int
    action: str
    fields: dict[str, Value] | None = None


BODIES: dict[str, type[_Nothing]] = {
    "probabilities": _Display,
    "choice": _Choice,
    "action": _Action,
}


async def _read(request: Request, kind: type[_Nothing]) -> _Nothing:
    """Read and check a request's body. Raises HTTPException for a wrong one."""
    # a page in a browser can send other types to an address that it may not read
    wanted = request.headers.get("content-type", "").partition(";")[0].strip()
    if wanted != "application/json":
        says = f"a body is application/json, got {wanted or 'none'}: set the header content-type"
        raise HTTPException(415, says)
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > MOST_BODY:
                says = f"a body has at most {MOST_BODY} bytes: ask for fewer items"
                raise HTTPException(413, says)
        return msgspec.json.decode(data, type=kind)
    except (ClientDisconnect, asyncio.CancelledError):
        # not handled, either would be a traceback of the service
        raise HTTPException(503, "the service ends, or its client left") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        keys = ", ".join(kind.__struct_fields__) or "no keys"
        raise HTTPException(400, f"the body is a JSON object of {keys}: {error}") from None


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return JSONResponse({"error": str(error)}, 400)


def http_app(model: OnlineModel) -> Starlette:
    """A Starlette application that serves a model's online users."""
    users: dict[str, OnlineUser] = {}

    def find(request: Request) -> str:
        name: str = request.path_params["user"]
        if name not in users:
            says = f"there is no user {name!r}: it was ended, or never made; make a new one"
            raise HTTPException(404, says)
        return name

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "users": len(users)})

    async def new(request: Request) -> Response:
        await _read(request, _Nothing)
        # not to be guessed: a client that outlived the service meets no other client's user
        name = secrets.token_urlsafe(9)
        users[name] = OnlineUser(model)
        return JSONResponse({"user": name}, 201)

    async def tell(request: Request) -> Response:
        user, kind = users[find(request)], BODIES.get(request.path_params["what"])
        if kind is None:
            raise HTTPException(404, f"a user has {', '.join(BODIES)}")
        body = await _read(request, kind)
        if isinstance(body, _Display):
            shares = user.probabilities(body.items, body.context, body.fields).tolist()
            answer = {"items": body.items, "probabilities": shares[: len(body.items)]}
            none = shares[-1] if model.networks.no_click else None
            return JSONResponse(answer | {"no_click": none, "unknown": user.unknown})
        if isinstance(body, _Choice):
            user.chose(body.item)
        elif isinstance(body, _Action):
            user.acted(body.item, body.action, body.fields)
        return JSONResponse({"choices": user.n_events})

    async def end(request: Request) -> Response:
        del users[find(request)]
        return JSONResponse({"users": len(users)})

    async def about(request: Request) -> Response:
        fields = model.fields.items()
        facts = {
            "n_items": len(model.item_ids),
            "head": model.networks.head,
            "no_click": model.networks.no_click,
            "context": dict(model.context_fields),
            "fields": {name: "numbers" if of is None else "categories" for name, of in fields},
            "actions": [] if model.actions is None else list(model.actions.of_kinds),
            "fields_known_of_items": sorted(model.of_items),
        }
        return JSONResponse(facts)

    routes = [
        Route("/health", health),
        Route("/model", about),
        Route("/users", new, methods=["POST"]),
        Route("/users/{user}/{what}", tell, methods=["POST"]),
        Route("/users/{user}", end, methods=["DELETE"]),
    ]
    handlers: dict[Any, Any] = {FastgaumError: _refuse, HTTPException: _refuse}
    return Starlette(routes=routes, exception_handlers=handlers)
