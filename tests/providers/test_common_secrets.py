"""Two integrations that would both pay one signed request are refused at start, in one line."""

from pathlib import Path
from typing import Any, Final

import pytest

from gateway.app import create_app
from gateway.providers.registry import build_all
from shared.errors import SettingsError
from shared.money import Currencies
from shared.settings import Settings

COMMON: Final = "the-common-secret"
KLAS: Final = {"provider": "klas"}
GPAS: Final = {"provider": "gpas", "parent_system_id": "A"}
HPGAMES: Final = {"provider": "hpgames", "merchant_id": "1387a6cc-3651-4473-ae52-e415caea3395"}
ACE: Final = {"provider": "igamingace", "agent_id": "Agent1"}
OTHER_MERCHANT: Final = "2387a6cc-3651-4473-ae52-e415caea3395"


def _both(one: dict[str, Any], other: dict[str, Any], *secrets: list[str]) -> dict[str, dict[str, Any]]:
    first, second = secrets or (["own-secret-1", COMMON], [COMMON, "own-secret-2"])
    return {"one": {**one, "secrets": first}, "other": {**other, "secrets": second}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (KLAS, KLAS),
        (GPAS, GPAS),
        (GPAS, {**GPAS, "parent_system_id": "B"}),
        (HPGAMES, HPGAMES),
        (HPGAMES, {**HPGAMES, "merchant_id": HPGAMES["merchant_id"].upper()}),
        (ACE, ACE),
        (ACE, {**ACE, "agent_id": "Agent"}),
        (ACE, {**ACE, "agent_id": "Agent12"}),
    ],
)
def test_start_refuses_two_integrations_that_one_signature_is_right_for(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError) as refused:
        create_app(Settings.model_validate({"integrations": _both(one, other)}))
    assert str(refused.value) == (
        "[integrations.one] and [integrations.other] have a secret in common: "
        "a win signed for one would be paid at the other, too"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HPGAMES, {**HPGAMES, "merchant_id": OTHER_MERCHANT}),
        (ACE, {**ACE, "agent_id": "Agent2"}),
        (ACE, {**ACE, "agent_id": "agent1"}),
        (KLAS, GPAS),
    ],
)
def test_one_secret_is_enough_for_accounts_that_are_signed(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert len(build_all(_both(one, other), Currencies())) == 2


def test_secrets_of_their_own_tell_any_two_integrations_apart() -> None:
    for table in (KLAS, GPAS, HPGAMES, ACE):
        tables = _both(table, table, ["own-secret-1"], ["own-secret-2"])
        assert len(build_all(tables, Currencies())) == 2


def test_secret_is_known_again_wherever_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(f"{COMMON}\n")
    monkeypatch.setenv("KLAS_SECRET", COMMON)
    kept = [[COMMON], ["env:KLAS_SECRET"], [f"file:{tmp_path}/secret"]]
    for first, second in zip(kept, [*kept[1:], kept[0]], strict=True):
        with pytest.raises(SettingsError, match="in common") as refused:
            build_all(_both(KLAS, KLAS, first, second), Currencies())
        assert COMMON not in str(refused.value)
