"""A bare Starlette application that returns what it is sent: what HTTP alone costs.

Serves on the ports of the product's settings: `python -m tests.bench.echo`.
"""

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.http import serve, serving
from shared.settings import load_settings
from shared.settings_http import GatewaySettings


async def echo(request: Request) -> Response:
    """Return the request's body."""
    return Response(await request.body(), media_type="application/json")


async def readyz(_request: Request) -> Response:
    """Say so."""
    return JSONResponse({"status": "ready"})


async def serve_both(settings: GatewaySettings) -> None:
    """Serve the echo and, as the product does on a port of its own, its readiness."""
    operations = Starlette(routes=[Route("/readyz", readyz)])
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["POST"])])
    async with serving(operations, settings.operations_host, settings.operations_port):
        await serve(app, settings.host, settings.port)


if __name__ == "__main__":
    uvloop.run(serve_both(load_settings().gateway))
