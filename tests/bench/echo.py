"""A bare Starlette application that returns what it is sent: what HTTP alone costs.

Serves on the port of the product's settings: `python -m tests.bench.echo`.
"""

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.http import serve
from shared.settings import load_settings


async def echo(request: Request) -> Response:
    """Return the request's body."""
    return Response(await request.body(), media_type="application/json")


async def readyz(_request: Request) -> Response:
    """Say so."""
    return JSONResponse({"status": "ready"})


if __name__ == "__main__":
    app = Starlette(routes=[Route("/readyz", readyz), Route("/{path:path}", echo, methods=["POST"])])
    gateway = load_settings().gateway
    uvloop.run(serve(app, gateway.host, gateway.port))
