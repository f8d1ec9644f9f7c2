"""iGamingAce's sign: its two versions, and that one signed message has one digest however it is cut."""

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.providers.base import Callback, CallbackRejected, Provider, Win
from gateway.providers.registry import build
from shared.errors import SettingsError
from shared.money import Currencies
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from shared.queries import PlayerRef
from simulator.dialects.base import KEY, Fields, body_of
from simulator.dialects.igamingace import AGENT, DIALECT, sent, signature_of
from simulator.dialects.values import Facts

USER: Final = "Player01"
BET: Final = "4146ed8dd6d5497780e9fc273e86bae0"
TX: Final = "474e1a293c2f4e7ab122c52d68423fcb"
ROUND: Final = "ab9c15f2efdd46278e4a56b303127234"
CASE: Final[dict[str, Any]] = {
    "agentID": AGENT,
    "userID": USER,
    "amount": msgspec.Raw(b"12.3"),
    "refTransactionID": BET,
    "transactionID": TX,
    "roundID": ROUND,
    "gameID": 2001,
    "freeSpinID": None,
}
VECTOR_KEY: Final = "1234567890"
VECTOR_2: Final = "C299A37986C806F27CCBC8D8599E0C8DA732D1604B934917C1ABC0999C244C0D"
VECTOR_1: Final = "475D834ACC3AB61D7DF4EA42751C6275387BC1787A098D2D0E091698D9BF2043"


def _provider(sign_version: object = "auto", **settings: Any) -> Provider[Any, Any]:
    return build("ace", {**DIALECT.settings, "sign_version": sign_version, **settings}, Currencies())


def _of_version(version: int, fields: Fields = CASE) -> Callback:
    return sent(body_of({**fields, "sign": signature_of(fields, KEY, version)}))


def _verifies(provider: Provider[Any, Any], callback: Callback) -> bool:
    try:
        provider.authenticate(callback)
    except CallbackRejected as refused:
        if refused.outcome.code is not OutcomeCode.BAD_SIGNATURE:
            raise
        return False
    return True


def _post(provider: Provider[Any, Any], callback: Callback, result: OutcomeCode = OutcomeCode.POSTED) -> None:
    """Verify a request, and have the ledger's answer said."""
    assert _verifies(provider, callback)
    provider.render(callback, Outcome(result))


def _credit(provider: Provider[Any, Any], callback: Callback) -> Credit:
    provider.authenticate(callback)
    credit = provider.normalize(provider.parse(callback), PlayerRef(USER, "EUR"))
    assert isinstance(credit, Credit)
    return credit


def test_whole_numbers_are_signed_as_they_are_written() -> None:
    numbers = {"agentID": 4711, "userID": 12001, "transactionID": msgspec.Raw(b"9" * 40)}
    texts = {name: body_of(number).decode() for name, number in numbers.items()}
    provider = _provider(2, agent_id="4711")
    as_numbers, as_texts = (_credit(provider, _of_version(2, {**CASE, **ids})) for ids in (numbers, texts))
    assert as_numbers == as_texts
    assert (as_numbers.player_id, as_numbers.provider_tx_id) == ("12001", "9" * 40)
    assert not _verifies(provider, _of_version(2, {**CASE, **numbers, "transactionID": msgspec.Raw(b"-0")}))


def test_vectors_of_both_versions_verify() -> None:
    current = sent(body_of({**CASE, "sign": VECTOR_2}))
    of_old = {**CASE, "refTransactionID": None, "gameID": 1566}
    older = sent(body_of({**of_old, "sign": VECTOR_1}))
    for version, right, wrong in ((2, current, older), (1, older, current)):
        for said in (version, str(version)):
            provider = _provider(said, secrets=[VECTOR_KEY])
            assert _verifies(provider, right)
            assert not _verifies(provider, wrong)


def test_either_version_verifies_until_the_current_one_was_posted() -> None:
    provider = _provider()
    with capture_logs() as lines:
        _post(provider, _of_version(1))
        _post(provider, _of_version(1))
        assert lines == []
        _post(provider, _of_version(2))
        _post(provider, _of_version(2))
    assert lines == [{"event": "sign version found", "log_level": "info", "integration": "ace", "sign_version": 2}]
    assert not _verifies(_provider(2), _of_version(1))


@pytest.mark.parametrize("result", [result for result in OutcomeCode if result is not OutcomeCode.POSTED])
def test_captured_message_that_is_cut_into_the_current_version_ends_no_older_wins(
    result: OutcomeCode,
) -> None:
    provider = _provider()
    _post(provider, _of_version(1))
    cut = {**CASE, "roundID": ROUND[:-4], "gameID": ROUND[-4:], "sign": signature_of(CASE, KEY, 1)}
    _post(provider, sent(body_of(cut)), result)
    assert _verifies(provider, _of_version(1))


def test_version_is_learnt_from_the_request_that_was_posted_not_from_the_last_one() -> None:
    provider, current = _provider(), _of_version(2)
    assert _verifies(provider, current)
    assert _verifies(provider, _of_version(1))
    provider.render(current, Outcome(OutcomeCode.POSTED))
    with pytest.raises(CallbackRejected):
        provider.authenticate(_of_version(1))


def test_older_version_after_the_current_one_is_to_be_sent_again() -> None:
    """A thief may have cut the current one out of an older one: a final answer would lose honest wins."""
    provider = _provider()
    _post(provider, _of_version(2))
    with pytest.raises(CallbackRejected) as refused:
        provider.authenticate(_of_version(1))
    assert refused.value.outcome.code is OutcomeCode.UNAVAILABLE
    assert provider.render(_of_version(1), refused.value.outcome).status == 502


def test_message_that_both_versions_share_tells_nothing_of_the_version() -> None:
    provider = _provider()
    _post(provider, _of_version(2, {**CASE, "gameID": None}))
    assert _verifies(provider, _of_version(1))


def test_forged_message_tells_nothing_of_the_version() -> None:
    provider = _provider()
    assert not _verifies(provider, sent(body_of({**CASE, "sign": "0" * 64})))
    assert _verifies(provider, _of_version(1))


@pytest.mark.parametrize("version", [0, 3, "v2", None, "2 "])
def test_start_refuses_a_version_that_is_none(version: object) -> None:
    with pytest.raises(SettingsError, match=r"\[integrations.ace\] sign_version"):
        _provider(version)


@pytest.mark.parametrize(("sign_version", "version"), [("auto", 2), (2, 2), (1, 1)])
def test_sample_is_signed_in_the_version_in_force(sign_version: object, version: int) -> None:
    sample = _provider(sign_version).sample_request(Win(TX, USER, "s"))
    fields = msgspec.json.decode(sample.body, type=dict[str, msgspec.Raw])
    sign = msgspec.json.decode(fields.pop("sign"))
    assert sign == signature_of(fields, KEY, version)


@pytest.mark.parametrize("field", ["refTransactionID", "roundID", "gameID"])
@pytest.mark.parametrize("nothing", [None, "", "absent"])
def test_field_without_a_value_is_signed_as_nothing(field: str, nothing: object) -> None:
    fields = {**CASE, field: nothing}
    if nothing == "absent":
        del fields[field]
    assert _verifies(_provider(2), sent(body_of({**fields, "sign": signature_of({**CASE, field: ""})})))


def _cuts(ids: str) -> Iterator[dict[str, Any]]:
    """Return the same message, cut everywhere: what a thief of one request would send."""
    for at in range(1, len(ids)):
        yield {
            **CASE,
            "refTransactionID": None,
            "transactionID": ids[:at],
            "roundID": ids[at:],
            "gameID": None,
        }
        yield {**CASE, "refTransactionID": ids[:at], "transactionID": ids[at:], "roundID": "", "gameID": ""}
    yield {**CASE, "userID": "Player011", "amount": msgspec.Raw(b"2.30")}
    yield {**CASE, "userID": "Player", "amount": "0112.30"}
    yield {**CASE, "userID": "Player0", "amount": msgspec.Raw(b"112.30")}


@pytest.mark.parametrize("version", [2, 1])
def test_one_signed_message_has_one_digest_wherever_it_is_cut(version: int) -> None:
    sign = signature_of(CASE, KEY, version)
    ids = f"{BET}{TX}{ROUND}" + "2001" * (version == 2)
    digest = hashlib.sha256(f"{AGENT}{USER}12.30{ids}".encode()).digest()
    assert _credit(_provider(), _of_version(version)).signed_digest == digest
    passed = 0
    for cut in _cuts(ids):
        callback = sent(body_of({**cut, "sign": sign}))
        try:
            credit = _credit(_provider(), callback)
        except CallbackRejected:
            continue
        assert credit.signed_digest == digest, cut
        passed += 1
    assert passed > 100


@pytest.mark.parametrize("version", [2, 1])
@pytest.mark.parametrize(("bet", "win"), [("50.00", "0.00"), ("0.50", "12.30"), ("1.00", "1000.00")])
def test_signed_bet_and_win_is_never_paid_as_a_deposit_wherever_it_is_cut(version: int, bet: str, win: str) -> None:
    """Its message is agentID, userID, betAmount, winAmount, transactionID, roundID, gameID."""
    ids, refused = f"{win}{TX}{ROUND}2001", 0
    sign = hmac.new(KEY, f"{AGENT}{USER}{bet}{ids}".encode(), hashlib.sha256).hexdigest().upper()
    said = {**CASE, "amount": bet, "gameID": None, "sign": sign}
    for at in range(1, len(ids)):
        before = {"refTransactionID": ids[:at], "transactionID": ids[at:], "roundID": ""}
        after = {"refTransactionID": "", "transactionID": ids[:at], "roundID": ids[at:]}
        longer = {**before, "userID": f"{USER}{bet[0]}", "amount": bet[1:]}
        for cut in (before, after, longer) if bet[1] != "." else (before, after):
            with pytest.raises(CallbackRejected) as error:
                _credit(_provider(version), sent(body_of({**said, **cut})))
            refused += error.value.outcome.detail == "a bet and win is not paid as a win"
    assert refused > 100


def test_digest_does_not_cover_what_is_not_signed() -> None:
    plain = _credit(_provider(), _of_version(1))
    otherwise = _of_version(1, {**CASE, "gameID": 7, "freeSpinID": "f", "amount": "12.300"})
    assert _credit(_provider(), otherwise).signed_digest == plain.signed_digest


def test_facts_alone_make_one_digest_each() -> None:
    wins = [Facts("player1", "s"), Facts("player1", "s")]
    digests = {_credit(_provider(), DIALECT.credit(win)).signed_digest for win in wins}
    assert len(digests) == 2
    assert all(digest is not None and len(digest) == 32 for digest in digests)
