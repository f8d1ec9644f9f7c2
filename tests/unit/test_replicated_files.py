"""The files of a replicated database agree with one another, and its faults say why they can't strike."""

import configparser
import re
from collections.abc import Mapping

import pytest
import typer

from tests.faults.__main__ import main
from tests.faults.replicated import FAULTS
from tests.support.servers.replicated import FILES, HOSTS

ETCD_PORT, DATABASE_PORT, PATRONI_PORT = 2379, 5432, 8008


def read(name: str) -> str:
    return (FILES / name).read_text()


def variables(name: str) -> Mapping[str, str]:
    lines = [line for line in read(name).splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_all_files_name_the_same_machines() -> None:
    etcd = variables("etcd.env")
    members = {f"{host}=http://{host}:2380" for host in HOSTS}
    assert set(etcd["ETCD_INITIAL_CLUSTER"].split(",")) == members
    found = re.search(r"hosts: (\S+)", read("patroni.yml"))
    assert found is not None
    assert found[1].split(",") == [f"{host}:{ETCD_PORT}" for host in HOSTS]
    servers = re.findall(r"^    server (\S+) (\S+)$", read("haproxy.cfg"), re.MULTILINE)
    assert servers == [(host, f"{host}:{DATABASE_PORT}") for host in HOSTS]


def test_all_files_agree_on_the_ports() -> None:
    patroni = variables("patroni.env")
    assert patroni["PATRONI_RESTAPI_CONNECT_ADDRESS"] == f"NODE:{PATRONI_PORT}"
    assert patroni["PATRONI_POSTGRESQL_CONNECT_ADDRESS"] == f"NODE:{DATABASE_PORT}"
    assert f"listen: 0.0.0.0:{PATRONI_PORT}" in read("patroni.yml")
    assert f"check port {PATRONI_PORT} " in read("haproxy.cfg")
    pgbouncer = configparser.ConfigParser(comment_prefixes=";")
    pgbouncer.read_string(read("pgbouncer.ini"))
    assert pgbouncer["databases"]["*"] == f"host=127.0.0.1 port={DATABASE_PORT}"
    assert pgbouncer["pgbouncer"]["server_login_retry"] == "1"


def test_no_file_has_a_real_password() -> None:
    passwords = {name: value for name, value in variables("patroni.env").items() if name.endswith("_PASSWORD")}
    assert set(passwords.values()) == {"PASSWORD"}
    assert "password" not in re.sub("(?m)^ *#.*$", "", read("patroni.yml")).replace("password_encryption", "")


def test_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        main(as_list=True, replicated=True)
    assert ended.value.exit_code == 0
    assert capsys.readouterr().out.splitlines() == list(FAULTS)


def test_one_line_says_that_containers_are_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CREDITS_TEST_SERVERS", "local")
    with pytest.raises(typer.Exit) as ended:
        main(replicated=True)
    assert ended.value.exit_code == 3
    assert capsys.readouterr().err == "A replicated database needs containers.\n"
