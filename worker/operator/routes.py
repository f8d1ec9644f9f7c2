"""The table of operations, from which both the routes and the OpenAPI document are made."""

from typing import Final

from shared.settings import Role
from worker.operator import handlers
from worker.operator.operation import Operation
from worker.operator.problems import Code
from worker.players import PlayerAdded, Session, SessionAnswer
from worker.queries.audit_entries import AuditPage, AuditQuery
from worker.queries.paging import Page
from worker.queries.views import (
    BalancesView,
    PlayerView,
    RoundView,
    TransferAnswer,
    TransferPage,
    WalletsView,
)

_PLAYER: Final = "/v1/players/{player_id}"
_SESSION: Final = "/v1/integrations/{integration}/sessions/{session_id}"

OPERATIONS: Final = (
    Operation(
        method="PUT",
        path=_PLAYER,
        name="add_player",
        summary="Add a player with a REAL and a BONUS wallet, or the parts of it that are missing",
        handler=handlers.add_player,
        role=Role.PLATFORM,
        body=handlers.NewPlayer,
        responses={201: PlayerAdded, 200: PlayerAdded},
        problems=(Code.UNKNOWN_CURRENCY,),
    ),
    Operation(
        method="GET",
        path=_PLAYER,
        name="show_player",
        summary="A player, with all wallets and the last transfers",
        handler=handlers.show_player,
        responses={200: PlayerView},
        problems=(Code.UNKNOWN_PLAYER,),
    ),
    Operation(
        method="GET",
        path=f"{_PLAYER}/wallets",
        name="show_wallets",
        summary="A player's wallets",
        handler=handlers.show_wallets,
        responses={200: WalletsView},
        problems=(Code.UNKNOWN_PLAYER,),
    ),
    Operation(
        method="GET",
        path=f"{_PLAYER}/balances",
        name="show_balances",
        summary="A player's balances, by currency",
        handler=handlers.show_balances,
        responses={200: BalancesView},
        problems=(Code.UNKNOWN_PLAYER,),
    ),
    Operation(
        method="GET",
        path=f"{_PLAYER}/transfers",
        name="list_transfers",
        summary="A player's transfers, newest first, a page at a time",
        handler=handlers.list_transfers,
        query=Page,
        responses={200: TransferPage},
        problems=(Code.UNKNOWN_PLAYER,),
    ),
    Operation(
        method="GET",
        path="/v1/transfers/{transfer_id}",
        name="show_transfer",
        summary="A transfer by our own id",
        handler=handlers.show_transfer,
        responses={200: TransferAnswer},
        problems=(Code.UNKNOWN_TRANSFER,),
    ),
    Operation(
        method="GET",
        path="/v1/integrations/{integration}/transfers/{provider_tx_id}",
        name="find_transfer",
        summary="Was this win paid? The transfer if it was; the problem `not_paid` if not",
        handler=handlers.find_transfer,
        responses={200: TransferAnswer},
        problems=(Code.NOT_PAID, Code.UNKNOWN_INTEGRATION),
    ),
    Operation(
        method="GET",
        path="/v1/integrations/{integration}/rounds/{round_id}",
        name="show_round",
        summary="The wins of a round, oldest first, a page at a time",
        handler=handlers.show_round,
        query=Page,
        responses={200: RoundView},
        problems=(Code.UNKNOWN_ROUND, Code.UNKNOWN_INTEGRATION),
    ),
    Operation(
        method="PUT",
        path=_SESSION,
        name="open_session",
        summary="Open a provider's wallet session for a player, unless it is open",
        handler=handlers.open_session,
        role=Role.PLATFORM,
        body=handlers.NewSession,
        responses={201: SessionAnswer, 200: SessionAnswer},
        problems=(
            Code.UNKNOWN_PLAYER,
            Code.UNKNOWN_CURRENCY,
            Code.UNKNOWN_INTEGRATION,
            Code.NO_WALLETS,
            Code.SESSION_ENDED,
            Code.SESSION_OF_ANOTHER,
        ),
    ),
    Operation(
        method="GET",
        path=_SESSION,
        name="show_session",
        summary="A session: its player, its currency, and whether it is open",
        handler=handlers.show_session,
        responses={200: Session},
        problems=(Code.UNKNOWN_SESSION,),
    ),
    Operation(
        method="POST",
        path=f"{_SESSION}/close",
        name="close_session",
        summary="Close a session, unless it is closed; wins of its rounds are paid all the same",
        handler=handlers.close_session,
        role=Role.PLATFORM,
        responses={200: SessionAnswer},
        problems=(Code.UNKNOWN_SESSION,),
    ),
    Operation(
        method="GET",
        path="/v1/audit",
        name="list_audit",
        summary="The audit log, newest first, a page at a time: changes, and attempts that were refused",
        handler=handlers.list_audit,
        role=Role.ADMIN,
        query=AuditQuery,
        responses={200: AuditPage},
    ),
    Operation(
        method="GET",
        path="/healthz",
        name="healthz",
        summary="The process is up",
        handler=handlers.healthz,
        responses={200: handlers.Status},
        is_public=True,
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="readyz",
        summary="The database answered just now",
        handler=handlers.readyz,
        responses={200: handlers.Status},
        is_public=True,
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Counters for Prometheus; they name operations and statuses, never a player",
        handler=handlers.show_metrics,
        responses={200: bytes},
        is_public=True,
    ),
)
