"""Checks at the start of a process that the broker accepts us: unlike an outage, a refusal needs a person."""

import asyncio
import ssl
from contextlib import suppress
from typing import Final

from aiormq.exceptions import AuthenticationError, ProbableAuthenticationError

from shared.broker.connection import BROKER_FAULTS, VhostRefused, connect
from shared.broker_url import node_of
from shared.errors import SettingsError
from shared.settings import BrokerSettings

CAUSES_MAX: Final = 10

_REFUSALS: Final = (
    ssl.SSLCertVerificationError,
    AuthenticationError,
    ProbableAuthenticationError,
    VhostRefused,
)


async def require_access(settings: BrokerSettings) -> None:
    """Raise SettingsError if every node refuses us, for its certificate, our account or the virtual host.

    A node that is down or accepts us is a reason to continue. Takes as long as one connection attempt.
    """
    refusals = await asyncio.gather(*(_refusal(settings, url) for url in settings.urls))
    if all(refusals):
        raise SettingsError(f"[broker] url: {'; '.join(refusals)}")


async def _refusal(settings: BrokerSettings, url: str) -> str:
    """Return how a node refuses us, or "" if it doesn't."""
    try:
        connection = await connect(settings, url)
    except BROKER_FAULTS as error:
        return f"{node_of(url)} refuses us: {_reason(error)}" if _is_refusal(error) else ""
    except ValueError:  # its text may quote a part of the URL
        return f"{node_of(url)} can't be asked: the driver can't use this URL"
    with suppress(*BROKER_FAULTS):  # the node has accepted us, however the connection ends
        await connection.close()
    return ""


def _is_refusal(error: BaseException) -> bool:
    """Return whether the error was caused by an unverifiable certificate or a refused account or virtual host."""
    for _ in range(CAUSES_MAX):
        if isinstance(error, _REFUSALS):
            return True
        if (cause := error.__cause__ or error.__context__) is None:
            break
        error = cause
    return False


def _reason(error: BaseException) -> str:
    return str(error.args[-1] if error.args else type(error).__name__)
