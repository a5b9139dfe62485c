"""Which names a request may call this backend by, so that a page elsewhere cannot lead a browser here by its own."""

import ipaddress
import socket
from typing import Any, Iterable

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

#: Characters of a name that are quoted; names of the internet have at most 253
LONGEST = 253


class AllowedHosts:
    """ASGI middleware: refuses requests whose ``Host`` header has another name.

    A page whose owner lets its name mean this machine's address (DNS rebinding) sends that name.

    Args:
        app: what answers the others.
        names: in lower case, without ports.
        any_address: all IP addresses are allowed too, which cannot be made to mean another machine.
    """

    def __init__(self, app: Any, names: Iterable[str], any_address: bool) -> None:
        self._app = app
        self._names = frozenset(names)
        self._any_address = any_address

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            name = _without_port(Headers(scope=scope).get("host", ""))
            if not (name in self._names or (self._any_address and is_address(name))):
                message = (
                    f"This backend is not called {name[:LONGEST]!a}. Start it with --allowed-host for other names.\n"
                )
                await PlainTextResponse(message, 400)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def own_names() -> Iterable[str]:
    """The names by which other machines may know this one."""
    return {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    host = host.strip().lower()
    # an IPv6 address has colons of its own
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
