"""The live page: the same document at every address of a run, and what it is made of."""

import hashlib
from typing import List

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import page

#: Nothing of anybody else: neither loaded, nor spoken to, nor around it
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # asked for each time, and sent if it is another: after an update of this package it is
    "Cache-Control": "no-cache",
}


def routes() -> List[BaseRoute]:
    """Addresses of the page; those of runs are what `prefect.Client.get_cloud_url` says."""
    assets = page.assets()
    etags = {name: f'"{hashlib.sha256(asset.text.encode()).hexdigest()}"' for name, asset in assets.items()}

    async def send(request: Request) -> Response:
        name = request.path_params.get("name", "live.html")
        if name not in assets:
            return Response("Not found", 404, HEADERS, media_type="text/plain")
        headers = {**HEADERS, "ETag": etags[name]}
        if request.headers.get("if-none-match") == etags[name]:
            return Response(status_code=304, headers=headers)
        return Response(assets[name].text, 200, {**headers, "Content-Type": assets[name].content_type})

    paths = ("/", "/page/{name}", "/{tenant}", "/{tenant}/flow-run/{id}", "/{tenant}/task-run/{id}")
    return [Route(path, send, methods=["GET"]) for path in paths]
