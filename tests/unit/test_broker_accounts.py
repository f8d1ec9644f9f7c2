"""The broker's accounts are written in three places, of which the tests try one."""

import json

import pytest

from tests.support.broker_users import PERMISSIONS, Permissions
from tests.support.paths import ROOT


@pytest.mark.parametrize(("user", "permissions"), PERMISSIONS.items())
def test_documents_and_compose_grant_what_the_files_in_deploy_do(user: str, permissions: Permissions) -> None:
    document = (ROOT / "docs/operations/security.md").read_text()
    configure, write, read = permissions
    assert f"set_permissions -p VHOST {user} '{configure}' '{write}' '{read}'\n" in document
    compose = (ROOT / "compose.yaml").read_text().replace("$$", "$")
    granted = {"user": user, "vhost": "/", **permissions._asdict()}
    assert json.dumps(granted) in compose
