"""Only whoever has a token may ask, as the user that it is of, and nobody is refused for ever."""

from hashlib import sha256

import pytest

from shared.errors import SettingsError
from shared.settings import OperatorSettings, OperatorUser, Role
from worker.operator.auth import Caller, Tokens
from worker.operator.throttle import SOURCES_MAX, Throttle

GOOD = "token-of-the-platform"
NAMED = "a-token-of-a-named-user-0123456789"


def hashed(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def user(role: Role, *tokens: str) -> OperatorUser:
    return OperatorUser(role=role, token_sha256=tuple(hashed(token) for token in tokens))


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ((), "there are none"),
        (("",), "missing or empty"),
        (("env:NOT_SET_ANYWHERE",), "env:NOT_SET_ANYWHERE"),
        (("file:/nowhere/token",), "file:/nowhere/token"),
        ((GOOD, "hunter2"), "shorter than 16 characters"),
        (("hunter2 and hunter2",), "may have letters"),
        (("hünter2hünter2hünter2",), "may have letters"),
    ],
)
def test_wrong_token_in_the_settings_stops_the_start_and_is_not_shown(tokens: tuple[str, ...], told: str) -> None:
    with pytest.raises(SettingsError, match=r"\[operator\] tokens") as refused:
        Tokens(OperatorSettings(tokens=tokens))
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_token_is_read_from_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_TOKEN", GOOD)
    tokens = Tokens(OperatorSettings(tokens=("env:PLATFORM_TOKEN", "literal-token-0123")))
    assert tokens.authenticate(f"Bearer {GOOD}".encode()) == Caller("token-1", Role.ADMIN)
    assert tokens.authenticate(b"Bearer literal-token-0123") == Caller("token-2", Role.ADMIN)
    assert tokens.authenticate(b"Bearer env:PLATFORM_TOKEN") is None
    assert GOOD not in repr(tokens)


def test_user_is_known_by_each_of_their_tokens_and_by_no_hash_of_one() -> None:
    users = {"ben": user(Role.SUPPORT, NAMED, f"{NAMED}-next"), "app": user(Role.PLATFORM, f"{NAMED}-app")}
    tokens = Tokens(OperatorSettings(users=users))
    for token in (NAMED, f"{NAMED}-next"):
        assert tokens.authenticate(f"Bearer {token}".encode()) == Caller("ben", Role.SUPPORT)
    assert tokens.authenticate(f"bearer  {NAMED}-app".encode()) == Caller("app", Role.PLATFORM)
    for wrong in (hashed(NAMED), NAMED[:-1], f"{NAMED} {NAMED}-next", ""):
        assert tokens.authenticate(f"Bearer {wrong}".encode()) is None


def test_short_token_of_a_user_is_nobodys() -> None:
    tokens = Tokens(OperatorSettings(users={"ben": user(Role.ADMIN, GOOD)}))
    assert tokens.authenticate(f"Bearer {GOOD}".encode()) is None


def test_token_of_two_users_stops_the_start() -> None:
    both = {"ben": user(Role.ADMIN, NAMED), "karla": user(Role.SUPPORT, NAMED)}
    with pytest.raises(SettingsError, match="ben and karla have one token"):
        Tokens(OperatorSettings(users=both))
    with pytest.raises(SettingsError, match="token-1"):
        Tokens(OperatorSettings(users={"token-1": user(Role.SUPPORT, NAMED)}, tokens=(GOOD,)))


def test_roles_include_those_below_them() -> None:
    including = {role: [other for other in Role if role.includes(other)] for role in Role}
    assert including == {
        Role.SUPPORT: [Role.SUPPORT],
        Role.PLATFORM: [Role.SUPPORT, Role.PLATFORM],
        Role.ADMIN: [Role.SUPPORT, Role.PLATFORM, Role.ADMIN],
    }


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_refusals_are_counted_by_source_until_the_window_ends() -> None:
    clock = Clock()
    throttle = Throttle(3, 60, clock)
    assert [throttle.count("a") for _ in range(5)] == [0, 0, 0, 60, 60]
    assert throttle.count("b") == 0
    clock.now = 59.5
    assert throttle.count("a") == 1
    clock.now = 60
    assert [throttle.count("a") for _ in range(4)] == [0, 0, 0, 60]


def test_sources_without_end_are_forgotten_oldest_first() -> None:
    throttle = Throttle(1, 60, Clock())
    for number in range(SOURCES_MAX):
        throttle.count(str(number))
    assert throttle.count("0") == 60
    throttle.count("one more")
    assert (throttle.count("2"), throttle.count("0")) == (60, 0)
