"""The tests' PostgreSQL as a cluster, whose commits may wait for a replica."""

import asyncio

import asyncpg

from tests.support.servers import Servers

UNTIL_SECONDS = 20


class Cluster:
    """The tests' one PostgreSQL, which may wait for a replica that is not there."""

    def __init__(self, servers: Servers) -> None:
        self._url = servers.database_url.replace("+asyncpg", "")

    async def wait_for(self, standby_names: str) -> None:
        """Have every commit of all databases wait for standbys."""
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute("SET synchronous_commit = local")
            await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby_names}'")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()
        async with asyncio.timeout(UNTIL_SECONDS):
            while await self.value("SHOW synchronous_standby_names") != standby_names:
                await asyncio.sleep(0.02)
            while standby_names and not await self._commits_wait():
                pass

    async def _commits_wait(self) -> bool:
        """Tell whether a commit waits: another process than the one that reloads the settings decides it."""
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute("SELECT pg_logical_emit_message(true, 'test', '')", timeout=0.2)
        except TimeoutError:
            return True
        finally:
            connection.terminate()
        return False

    async def value(self, statement: str) -> object:
        connection = await asyncpg.connect(self._url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    async def cancel_one_wait(self) -> None:
        """Cancel a commit that waits in a test's database, as an administrator may, once there is one."""
        statement = (
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event = 'SyncRep' AND datname <> current_database() LIMIT 1"
        )
        async with asyncio.timeout(UNTIL_SECONDS):
            while not await self.value(statement):
                await asyncio.sleep(0.02)
