"""A client of the operator API that believes nothing: every answer is held against the document."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

import httpx
from openapi_schema_validator import OAS31Validator
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import LedgerSettings, OperatorSettings, OperatorUser, Role, Settings
from worker.operator.app import create_operator_app

TOKEN: Final = "token-of-the-platform"
SECOND_TOKEN: Final = "token-that-comes-next"
AUTHORIZED: Final = {"authorization": f"Bearer {TOKEN}"}
USERS: Final = {role: f"token-of-a-user-with-the-role-{role}" for role in Role}
"""A named user's token for each role, which is their name, too."""

BASE: Final = "http://operator"


class Api:
    """The API, asked in process or over HTTP."""

    def __init__(self, client: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self.client = client
        self.document = document

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask with the token unless `headers` say otherwise.

        The operation and its status must be in the document, and the answer as the document has it.
        """
        headers = {**AUTHORIZED, **request.pop("headers", {})}
        response = await self.client.request(method, path, headers=headers, **request)
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        operation = self._operation(method, response.request.url.raw_path.decode())
        if operation is None:
            assert response.json()["code"] in {
                "no_such_path",
                "method_not_allowed",
                "unauthorized",
                "throttled",
            }
        else:
            self._assert_documented(operation, response)
        return response

    async def get(self, path: str, status: int = 200, **request: Any) -> Any:
        """Return what a GET answers, which must have this status."""
        response = await self.ask("GET", path, **request)
        assert response.status_code == status, response.text
        return response.json()

    async def put(self, path: str, body: Any, **request: Any) -> httpx.Response:
        """PUT JSON."""
        return await self.ask("PUT", path, json=body, **request)

    def _operation(self, method: str, raw_path: str) -> Any:
        for template, operations in self.document["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/?]+", template), raw_path.partition("?")[0]):
                return operations.get(method.lower())
        return None

    def _assert_documented(self, operation: Any, response: httpx.Response) -> None:
        documented = operation["responses"][str(response.status_code)]
        content = documented["content"][response.headers["content-type"]]
        if "json" in response.headers["content-type"]:
            schema = {**content["schema"], "components": self.document["components"]}
            OAS31Validator(schema).validate(response.json())
        assert all(name in response.headers for name in documented.get("headers", {}))


def settings_for(engine: AsyncEngine, *integrations: str, **ledger: Any) -> Settings:
    """Return settings for a ledger's database, with two tokens and a user of each role."""
    url = engine.url.render_as_string(hide_password=False)
    return Settings(
        ledger=LedgerSettings(database_url=url, **ledger),
        operator=OperatorSettings(
            tokens=(TOKEN, SECOND_TOKEN),
            users={
                role.value: OperatorUser(role=role, token_sha256=(sha256(token.encode()).hexdigest(),))
                for role, token in USERS.items()
            },
        ),
        integrations={name: {"provider": name} for name in integrations},
    )


@asynccontextmanager
async def operator_api(settings: Settings) -> AsyncIterator[Api]:
    """Serve the API in process."""
    app = create_operator_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client,
    ):
        yield Api(client, (await client.get("/openapi.json")).json())


def path_of(*segments: str) -> str:
    """Return a path of /v1, its segments percent-encoded."""
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def bearing(role: Role) -> dict[str, str]:
    """Return the header of a user with this role."""
    return {"authorization": f"Bearer {USERS[role]}"}
