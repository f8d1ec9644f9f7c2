"""A wrong database URL is told in one line, and its password is not told."""

import ssl
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from shared.errors import SettingsError
from shared.settings import LedgerSettings
from worker.cli.context import redacted_url
from worker.database.engine import create_engine
from worker.database.url import Postgres, read_postgres, read_url

PLACE = "postgresql+asyncpg://user:hunter2@127.0.0.1/db"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "postgresql://user:hunter2@127.0.0.1/db",
        "mysql://user:hunter2@127.0.0.1/db",
        "postgresql+asyncpg://user:hunt@er2:hunter2@127.0.0.1/db",
        "postgresql+asyncpg://user:hunter2@127.0.0.1:hunter2/db",
        "postgresql+asyncpg://user:hunt@er2@127.0.0.1/db",
        "postgresql+asyncpg://user:hunt@er2/x@127.0.0.1/db",
        "postgresql+asyncpg://user:hunt@?er2=x@127.0.0.1/db",
        "postgresql+asyncpg://user:hunter2@127.0.0.1:99999/db",
        "postgresql+asyncpg://user:hunter2@/db?host=a:hunter2&host=b:hunter2",
        "sqlite+aiosqlite://hunter2/place.db",
        "sqlite+aiosqlite:///place.db?hunter2=1",
        "sqlite+aiosqlite:////proc/no/such/place.db",
        "sqlite+aiosqlite:////proc/place.db",
    ],
)
def test_wrong_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[ledger\] database_url: [^\n]+$") as refused:
        create_engine(LedgerSettings(database_url=url))
    assert "hunt" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "defect"),
    [
        ("sslmode=hunter2", "sslmode is one of disable, allow"),
        ("ssl=true", "ssl is one of disable, allow"),
        ("sslmode=require&ssl=require", "two names of one option"),
        ("sslmode=require&sslmode=hunter2", "sslmode is there twice"),
        ("sslrootcert=/nowhere", "sslrootcert needs sslmode=verify-full"),
        ("sslmode=prefer&sslcert=/nowhere", "sslcert needs sslmode=verify-full"),
        ("sslmode=verify-full&sslrootcert=/nowhere", "sslrootcert: /nowhere: No such file"),
        ("sslmode=verify-ca&sslrootcert=/", "sslrootcert: /: Is a directory"),
        ("sslmode=require&sslrootcert=/etc/passwd", "sslrootcert: holds no certificate"),
        ("sslmode=require&sslcert=/etc/passwd", "sslcert: holds no certificate"),
        ("sslmode=require&sslkey=/etc/passwd", "sslkey needs sslcert"),
        ("channel_binding=require", "there is no option 'channel_binding'; there are application_name, "),
        ("options=-c%20jit=off", "there is no option 'options'"),
        ("statement_cache_size=0", "there is no option 'statement_cache_size'"),
        ("hunter2=1", "there is no option of that name"),
        ("connect_timeout=0", "connect_timeout is whole seconds"),
        ("connect_timeout=1.5", "connect_timeout is whole seconds"),
        ("target_session_attrs=hunter2", "target_session_attrs is one of any, primary"),
        ("application_name=a%01", "application_name is 1 to 63 printable"),
    ],
)
def test_option_that_the_driver_does_not_take_is_named(options: str, defect: str) -> None:
    with pytest.raises(SettingsError, match=r"^\[ledger\] database_url: [^\n]+$") as refused:
        create_engine(LedgerSettings(database_url=f"{PLACE}?{options}"))
    assert defect in str(refused.value)
    assert "hunter2" not in str(refused.value)


def read(options: str) -> Postgres:
    return read_postgres(read_url(f"{PLACE}?{options}"))


@pytest.mark.parametrize(
    ("options", "verifies", "checks_name"),
    [
        ("sslmode=require", ssl.CERT_NONE, False),
        ("ssl=require", ssl.CERT_NONE, False),
        ("sslmode=require&sslrootcert={ca}", ssl.CERT_REQUIRED, False),
        ("sslmode=verify-ca&sslrootcert={ca}", ssl.CERT_REQUIRED, False),
        ("sslmode=verify-full&sslrootcert={ca}", ssl.CERT_REQUIRED, True),
        ("sslmode=verify-full", ssl.CERT_REQUIRED, True),
        ("sslmode=require&sslrootcert=system", ssl.CERT_REQUIRED, True),
        ("sslmode=require&sslcert={ca}&sslkey={key}", ssl.CERT_NONE, False),
    ],
)
def test_mode_of_tls_verifies_as_libpq_does(
    certificate: tuple[Path, Path],
    options: str,
    verifies: ssl.VerifyMode,
    checks_name: bool,  # noqa: FBT001  (a table's column)
) -> None:
    ca, key = certificate
    context = read(options.format(ca=ca, key=key)).arguments["ssl"]
    assert (context.verify_mode, context.check_hostname) == (verifies, checks_name)
    assert (len(context.get_ca_certs()) == 1) is ("sslrootcert={ca}" in options)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate that vouches for itself, and its key."""
    here = tmp_path_factory.mktemp("tls")
    made, key = here / "ca.pem", here / "key.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*new, "-subj", "/CN=localhost", "-keyout", key, "-out", made], check=True, capture_output=True)
    return made, key


def test_every_other_option_reaches_the_driver() -> None:
    url, arguments, name = read(
        "sslmode=disable&connect_timeout=3&target_session_attrs=primary&application_name=here&host=a:1&host=b:2"
    )
    assert arguments == {"timeout": 3.0, "target_session_attrs": "primary", "ssl": False}
    assert name == "here"
    assert dict(url.query) == {"host": ("a:1", "b:2")}
    assert read("sslmode=prefer").arguments == {"ssl": "prefer"}
    assert read("").arguments == {}


@pytest.mark.parametrize("password", ["a/b", "a#b", "a?b", "100%", "a%40b", "a%2Fb"])
def test_password_that_the_driver_reads_as_it_is_meant_is_taken(password: str) -> None:
    url = read_url(f"postgresql+asyncpg://user:{password}@127.0.0.1/db")
    assert (read_postgres(url).url.password, url.host) == (unquote(password), "127.0.0.1")


async def test_path_with_a_percent_sign_is_that_file(tmp_path: Path) -> None:
    engine = create_engine(LedgerSettings(database_url=f"sqlite+aiosqlite:///{tmp_path}/100%/100%25.db"))
    async with engine.connect():
        assert (tmp_path / "100%" / "100%.db").is_file()
    await engine.dispose()


def test_place_of_a_database_is_told_without_its_password() -> None:
    url = "postgresql+asyncpg://user:hunter2@127.0.0.1:5432/db?password=hunter2"
    assert redacted_url(LedgerSettings(database_url=url)) == "postgresql+asyncpg://user:***@127.0.0.1:5432/db"
