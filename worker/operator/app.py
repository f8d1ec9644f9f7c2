"""The composition root of the operator API: it builds a Starlette application from settings, and serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from shared.cached_call import READINESS_TTL_SECONDS, CachedCall
from shared.http import RefusalLog
from shared.http import serve as serve_http
from shared.http.tls import server_context
from shared.money import Currencies
from shared.readiness import Readiness
from shared.settings import Settings
from worker.operator.auth import Tokens
from worker.operator.cells import Cells
from worker.operator.endpoint import Endpoint
from worker.operator.metrics import OperatorMetrics
from worker.operator.middleware import OperatorMiddleware, path_not_found
from worker.operator.openapi import document
from worker.operator.operation import Operation, Services
from worker.operator.problems import Reply
from worker.operator.routes import OPERATIONS
from worker.operator.throttle import Throttle, ThrottleLog

_log: Final = structlog.get_logger()


def create_operator_app(settings: Settings) -> Starlette:
    """Return the operator API's application. Raises SettingsError.

    On startup its lifespan raises SettingsError if tables are of another version, and LedgerUnavailable if no
    database answers. On shutdown it closes the databases.
    """
    tokens = Tokens(settings.operator)
    cells = Cells(settings)
    readiness = Readiness(cells.probes)
    services = _create_services(settings, cells, readiness)
    operations = [*OPERATIONS, _openapi(OPERATIONS)]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            await services.cells.require_migrated()
            yield
        finally:
            services.throttle_log.flush()
            readiness.stop()
            await services.cells.dispose()

    public_paths = frozenset(operation.path for operation in operations if operation.is_public)
    middleware = Middleware(OperatorMiddleware, tokens=tokens, public_paths=public_paths, services=services)
    app = Starlette(routes=_routes(services, operations), middleware=[middleware], lifespan=lifespan)
    app.router.redirect_slashes = False  # the OpenAPI document has no redirects
    app.router.default = path_not_found
    app.state.refusals = RefusalLog(lambda reason: services.metrics.connections_refused.labels(reason).inc())
    return app


async def serve(settings: Settings) -> None:
    """Serve the operator API until SIGTERM or SIGINT. Raises SettingsError or LedgerUnavailable if it can't start."""
    app, own = create_operator_app(settings), settings.operator
    tls = server_context(own.tls_certificate, own.tls_key, "operator")
    async with app.router.lifespan_context(app):
        if own.tokens:
            _log.warning(
                "tokens without a name may do everything, and the audit log can't say whose they are",
                setting="[operator] tokens",
                number=len(own.tokens),
                instead="python -m worker token new NAME --role ROLE",
            )
        _log.info("operator API serves", host=own.host, port=own.port)
        await serve_http(
            app,
            own.host,
            own.port,
            tls=tls,
            refusals=app.state.refusals,
            setting="[operator] host, port",
            app_reports_trust=True,
        )
    _log.info("operator API stopped")


def _create_services(settings: Settings, cells: Cells, readiness: Readiness) -> Services:
    return Services(
        cells=cells,
        settings=settings,
        currencies=Currencies(settings.currencies),
        metrics=OperatorMetrics(),
        throttle=Throttle(settings.operator.refusals_max, settings.operator.refusals_seconds),
        throttle_log=ThrottleLog(),
        obstacles=CachedCall(readiness.check, READINESS_TTL_SECONDS),
    )


def _routes(services: Services, operations: list[Operation]) -> list[Route]:
    by_path = groupby(sorted(operations, key=lambda o: o.path), key=lambda o: o.path)
    return [Route(path, Endpoint(services, list(same))) for path, same in by_path]


def _openapi(operations: tuple[Operation, ...]) -> Operation:
    """Return the operation that serves the OpenAPI document, which includes this operation."""

    async def show_document(_services: Services) -> Reply:
        return Reply(200, content)

    operation = Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This document",
        handler=show_document,
        responses={200: dict},
        is_public=True,
    )
    content = document([*operations, operation])
    return operation
