"""The composition root of the operator API: settings in, a Starlette application out."""

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
from worker.operator.middleware import OperatorMiddleware, nowhere
from worker.operator.openapi import document
from worker.operator.operation import Operation, Services
from worker.operator.problems import Reply
from worker.operator.routes import OPERATIONS
from worker.operator.throttle import Throttle, ThrottleLog

_log: Final = structlog.get_logger()


def create_operator_app(settings: Settings) -> Starlette:
    """Return the operator API. Raises SettingsError with one clear line.

    Its lifespan closes the database, and raises SettingsError when the tables are not this version's, or
    LedgerUnavailable when nobody can tell.
    """
    tokens = Tokens(settings.operator)
    cells = Cells(settings)
    readiness = Readiness(cells.probes)
    desk = _desk(settings, cells, readiness)
    operations = [*OPERATIONS, _openapi(OPERATIONS)]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            await desk.cells.require_migrated()
            yield
        finally:
            desk.throttle_log.flush()
            readiness.stop()
            await desk.cells.dispose()

    open_paths = frozenset(operation.path for operation in operations if operation.is_open)
    front = Middleware(OperatorMiddleware, tokens=tokens, open_paths=open_paths, desk=desk)
    app = Starlette(routes=_routes(desk, operations), middleware=[front], lifespan=lifespan)
    app.router.redirect_slashes = False  # a redirect would be an answer that the document doesn't have
    app.router.default = nowhere
    app.state.refusals = RefusalLog(lambda reason: desk.metrics.connections_refused.labels(reason).inc())
    return app


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises SettingsError or LedgerUnavailable when it can't begin."""
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


def _desk(settings: Settings, cells: Cells, readiness: Readiness) -> Services:
    return Services(
        cells=cells,
        settings=settings,
        currencies=Currencies(settings.currencies),
        metrics=OperatorMetrics(),
        throttle=Throttle(settings.operator.refusals_max, settings.operator.refusals_seconds),
        throttle_log=ThrottleLog(),
        obstacles=CachedCall(readiness.check, READINESS_TTL_SECONDS),
    )


def _routes(desk: Services, operations: list[Operation]) -> list[Route]:
    by_path = groupby(sorted(operations, key=lambda o: o.path), key=lambda o: o.path)
    return [Route(path, Endpoint(desk, list(same))) for path, same in by_path]


def _openapi(operations: tuple[Operation, ...]) -> Operation:
    """Return the operation that serves the document, itself included."""

    async def show_document(_desk: Services) -> Reply:
        return Reply(200, made)

    operation = Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This document",
        handler=show_document,
        answers={200: dict},
        is_open=True,
    )
    made = document([*operations, operation])
    return operation
