"""Signed sample requests, as curl commands for a shell."""

import shlex
from urllib.parse import urlencode

from gateway.providers.base import Callback


def curl_line(base_url: str, integration: str, callback: Callback) -> str:
    """Return a curl command that sends `callback` to the gateway at `base_url`."""
    url = f"{base_url}/{integration}/{callback.path}"
    if callback.query:
        url += "?" + urlencode(callback.query)
    headers = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in callback.headers.items()]
    body = shlex.quote(callback.body.decode())
    return " ".join(["curl", "-sS", shlex.quote(url), *headers, "-d", body])
