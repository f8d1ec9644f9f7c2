"""The operator API keeps its word whatever is sent: no fault, and nothing that its document doesn't have."""

import asyncio
import sys
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from shared.settings import LedgerSettings, Role
from tests.support.commands import INHERITED, until_ready
from tests.support.operator_api import USERS, bearing
from tests.support.paths import ROOT
from tests.support.servers.server import free_ports
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.operator.routes import OPERATIONS
from worker.players import add_player
from worker.queries.audit_entries import AuditQuery, list_audit

pytestmark = pytest.mark.slow

CASES_MAX = 30
"""Of each operation and way of making them up."""

HANGS_AFTER_SECONDS = 120
"""Ten times what it takes."""

SECRET = "session-that-opens-a-wallet"


class Served:
    """A running `python -m worker operator`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, database_url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.database_url = database_url
        self.log = log

    async def end(self) -> str:
        """End it; return its log."""
        self.process.terminate()
        assert await self.process.wait() == 0
        return self.log.read_text()


@pytest.fixture
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    """The process on a ledger with player anna, with a user of each role."""
    database_url = f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    engine = create_engine(LedgerSettings(database_url=database_url))
    await migrate(engine)
    await add_player(engine, "anna", "EUR")
    await engine.dispose()
    (port,) = free_ports(1)
    users = {f"CREDITS_OPERATOR__USERS__{role.upper()}__ROLE": role.value for role in Role}
    hashes = {
        f"CREDITS_OPERATOR__USERS__{role.upper()}__TOKEN_SHA256": f'["{sha256(token.encode()).hexdigest()}"]'
        for role, token in USERS.items()
    }
    environment = {
        "CREDITS_CONFIG": "",
        "CREDITS_LEDGER__DATABASE_URL": database_url,
        "CREDITS_OPERATOR__PORT": str(port),
        "CREDITS_INTEGRATIONS__KLAS__PROVIDER": "klas",
        "CREDITS_OPERATOR__REFUSALS_MAX": str(getattr(request, "param", 10)),
    }
    log = tmp_path / "operator.log"
    with log.open("w") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "operator"),
            cwd=ROOT,
            env={**INHERITED, **environment, **users, **hashes},
            stderr=file,
        )
    try:
        await until_ready(process, url := f"http://127.0.0.1:{port}")
        yield Served(process, url, database_url, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("served", [1_000_000], indirect=True, ids=["nobody is throttled"])
async def test_every_answer_is_as_the_document_says(served: Served, tmp_path: Path) -> None:
    """Requests are made from the document, right and wrong; each answer is held against it."""
    command = (
        *(str(Path(sys.executable).parent / "schemathesis"), "--config-file"),
        *(str(Path(__file__).parent / "schemathesis.toml"), "run", f"{served.url}/openapi.json"),
        *("--header", f"Authorization: {bearing(Role.ADMIN)['authorization']}"),
        *("--generation-deterministic", "--generation-codec", "ascii", "--max-examples", str(CASES_MAX)),
        *("--continue-on-failure", "--no-color", "--warnings", "off"),
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        env=INHERITED,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), HANGS_AFTER_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, out.decode()
    assert f"Tested: {len(OPERATIONS)}\n" in out.decode(), out.decode()  # the document itself is none
    log = await served.end()
    assert " error " not in log
    assert log.count("operation=list_audit") > CASES_MAX


async def test_stranger_learns_nothing_fills_no_log_and_keeps_nobody_out(served: Served) -> None:
    """500 guesses from one address, with the operator's own requests among them."""
    session = f"{served.url}/v1/integrations/klas/sessions/{SECRET}"
    async with httpx.AsyncClient(timeout=180) as client:  # most wait for a connection of its pool
        guesses = [
            client.put(session, headers={"authorization": f"Bearer guess-{n}"}, json={"player_id": "anna"})
            for n in range(500)
        ]
        honest = [client.get(f"{served.url}/v1/players/anna", headers=bearing(role)) for role in Role]
        answers = await asyncio.gather(*guesses[:250], *honest, *guesses[250:])
        statuses = [answer.status_code for answer in answers]
        assert statuses[250 : 250 + len(honest)] == [200] * len(honest)
        assert (statuses.count(401), statuses.count(429)) == (10, 490)
        assert all(answer.headers["cache-control"] == "no-store" for answer in answers)
        missing = await client.get(session, headers=bearing(Role.SUPPORT))
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_session")
    log = await served.end()
    assert log.count(" request ") < 20
    assert "refusals throttled" in log
    assert all(secret not in log for secret in ("guess-", SECRET, *USERS.values()))


async def test_thief_of_a_support_token_changes_nothing_and_is_written_down(served: Served) -> None:
    changes = [
        ("PUT", "/v1/players/thief", {"currency": "EUR"}),
        ("PUT", f"/v1/integrations/klas/sessions/{SECRET}", {"player_id": "anna"}),
        ("POST", f"/v1/integrations/klas/sessions/{SECRET}/close", None),
        ("GET", "/v1/audit", None),
    ]
    async with httpx.AsyncClient(base_url=served.url, headers=bearing(Role.SUPPORT)) as client:
        for method, path, body in changes:
            refused = await client.request(method, path, json=body)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        for method, status in {"PATCH": 405, "DELETE": 405, "TRACE": 405, "CONNECT": 400}.items():
            assert (await client.request(method, "/v1/players/anna")).status_code == status
        flood = [client.request(*changes[0][:2], json=changes[0][2]) for _ in range(100)]
        assert {answer.status_code for answer in await asyncio.gather(*flood)} == {403, 429}
        assert (await client.get("/v1/players/thief")).status_code == 404
    engine = create_engine(LedgerSettings(database_url=served.database_url))
    written = (await list_audit(engine, AuditQuery(limit=500, actor="support"))).entries
    await engine.dispose()
    assert [entry.outcome for entry in written] == ["forbidden"] * 10
    assert SECRET not in repr(written)
