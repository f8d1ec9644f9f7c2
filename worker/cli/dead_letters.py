"""`dead`: what could not be decoded or posted, and is kept for a person."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.cells import Part
from shared.ids import is_id
from shared.money import Currencies
from shared.operations import Credit
from shared.settings import Settings, load_settings
from worker.cli.cells import (
    Answers,
    cell_to_change,
    cells_to_read,
    collecting,
    say_found,
    say_of_cell,
)
from worker.cli.context import read
from worker.cli.dead_letter_audit import audited
from worker.cli.exit_codes import ExitCode, fail, warn
from worker.cli.options import ActingAs, AsJson, Cell, actor_named
from worker.cli.output import aligned, counted, print_answer
from worker.database.audit_log import Action
from worker.queries import queries
from worker.queries.views import amount_of

if TYPE_CHECKING:
    from worker.messaging.dead_letters import DeadLetter

dead: Final = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Messages that were put aside: what could not be decoded or posted.",
)
Id = Annotated[str, typer.Argument(metavar="ID", help="As `dead list` names it.")]

HEX_BYTES_MAX: Final = 256
_NOT_HERE: Final = "not put aside"


class DeadCredit(msgspec.Struct, frozen=True):
    """A credit of a message that was put aside, and whether it is paid by now."""

    credit: Credit
    posted: bool


@dead.command("list")
def list_dead(
    *,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Only what nobody has signed, which is kept apart.")
    ] = False,
    cell: Cell = None,
    as_json: AsJson = False,
) -> None:
    """List what was put aside, and why. Nothing is lost by looking."""
    settings = load_settings()
    currencies = Currencies(settings.currencies)
    cells = list(cells_to_read(settings, cell, Part.BROKER))
    answers = Answers[int](are_several=len(cells) > 1)
    for own in cells:
        name = own.broker.cell
        with collecting(answers, name):
            found = _look(own, unsigned=unsigned)
            messages = [message for message in found if not (unsigned and message.authentic)]
            listed = {"messages": messages} if answers.are_several else messages
            say_of_cell(listed, _list_text(messages, currencies), answers.label(name), as_json=as_json)
            answers.by_cell[name] = 0 if unsigned else _count_unsigned(own)
    if others := sum(answers.by_cell.values()):
        warn(f"{others} more that nobody has signed are put aside: `dead list --unsigned`")
    answers.end_if_incomplete()


@dead.command("show")
def show_dead(message_id: Id, *, cell: Cell = None, as_json: AsJson = False) -> None:
    """Show one message: why it was put aside, what it asks for, and whether that is paid by now."""
    settings = load_settings()
    cells = list(cells_to_read(settings, cell, *Part))
    answers = Answers["Mapping[str, Any]"](are_several=len(cells) > 1)
    for own in cells:
        with collecting(answers, own.broker.cell):
            for message in _find(own, {message_id}):
                credits_ = read(own, _whether_posted, message.credits)
                answers.by_cell[own.broker.cell] = {"message": message, "credits": credits_}

    def text(shown: Mapping[str, Any]) -> str:
        return _text(shown["message"], shown["credits"], Currencies(settings.currencies))

    say_found(answers, text, f"no message {message_id!r} is put aside", as_json=as_json)


@dead.command("send-back")
def send_back_dead(  # noqa: PLR0913  (each is an option)
    message_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="As `dead list` names them.")
    ] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="All that can be decoded and that a gateway or worker signed.")
    ] = False,
    unsigned: Annotated[
        bool,
        typer.Option("--unsigned", help="Also those of the named that nobody signed: you vouch for them."),
    ] = False,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Have workers post what was put aside, after its cause was mended.

    A credit that is posted already moves nothing; one that still can't be posted comes back. What is not
    authentic was forged, or sent by a version that did not sign: look with `dead show` first.
    """
    if bool(message_ids) is everything:
        raise typer.BadParameter("name messages, or give --all")
    if everything and unsigned:
        raise typer.BadParameter("--unsigned is for messages that are named, each after a look at it")
    from worker.messaging.dead_letters import requeue  # noqa: PLC0415  (no other command waits for what speaks to the broker)

    wanted, settings = set(message_ids or ()), cell_to_change(load_settings(), cell, *Part)
    messages = _look(settings, unsigned=False) if everything else _find(settings, wanted)

    def is_chosen(message: "DeadLetter") -> bool:
        named = everything or message.id in wanted
        return message.can_be_requeued and named and (unsigned or message.authentic)

    chosen = {message.id: message for message in messages if is_chosen(message)}
    with audited(settings, actor_named(acting_as), Action.DEAD_SEND_BACK, chosen) as sent:
        sent.extend(asyncio.run(requeue(settings.broker, lambda m: m.id in chosen, _queues(chosen))))
        lines = [f"sent back: {message.id}, {counted(len(message.credits), 'credit')}" for message in sent]
        print_answer(sent, "\n".join(lines) or "nothing was sent back", as_json=as_json)
    if missing := wanted - {message.id for message in sent}:
        found = {message.id: message for message in messages}
        reasons = {name: _why_not_sent_back(found.get(name), unsigned=unsigned) for name in missing}
        fail(ExitCode.NO, f"not sent back: {_with_reasons(reasons)}")


@dead.command("drop")
def drop_dead(
    message_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `dead list` names them.")],
    *,
    unpaid: Annotated[
        bool, typer.Option("--unpaid", help="Also what asks, or may ask, for a credit that is not paid.")
    ] = False,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Remove messages for good, and print what they were.

    One that asks for a credit that is not paid stays, as does one that can't be decoded, which may ask for
    one, unless you say that it may go.
    """
    from worker.messaging.dead_letters import discard  # noqa: PLC0415  (see above)

    settings = cell_to_change(load_settings(), cell, *Part)
    named, currencies = _find(settings, set(message_ids)), Currencies(settings.currencies)
    asked = [credit for message in named for credit in message.credits]
    posted = {c.credit.identity: c.posted for c in read(settings, _whether_posted, asked)}

    def credits_of(message: "DeadLetter") -> list[DeadCredit]:
        return [DeadCredit(credit, posted[credit.identity]) for credit in message.credits]

    paid = {m.id for m in named if not m.defect and all(c.posted for c in credits_of(m))}
    may_go = {message.id: message for message in named if unpaid or message.id in paid}
    with audited(settings, actor_named(acting_as), Action.DEAD_DROP, may_go) as gone:
        gone.extend(asyncio.run(discard(settings.broker, lambda m: m.id in may_go, _queues(may_go))))
        text = "\n\n".join(_text(message, credits_of(message), currencies) for message in gone)
        print_answer(gone, text or "nothing was dropped", as_json=as_json)
    if kept := set(message_ids) - {message.id for message in gone}:
        here = {message.id for message in named} - set(may_go)
        why = {name: "not known to be paid: needs --unpaid" if name in here else _NOT_HERE for name in kept}
        fail(ExitCode.NO, f"not dropped: {_with_reasons(why)}")


def _look(settings: Settings, *, unsigned: bool) -> "list[DeadLetter]":
    """Return what is put aside; what nobody has signed, and is kept apart, only if that is wanted too."""
    from worker.messaging.dead_letters import BOTH, list_all  # noqa: PLC0415  (see above)

    return asyncio.run(list_all(settings.broker, BOTH if unsigned else BOTH[:1]))


def _find(settings: Settings, wanted: Collection[str]) -> "list[DeadLetter]":
    """Return the messages of these ids: what nobody has signed, and may be much, is searched last."""
    found = [message for message in _look(settings, unsigned=False) if message.id in wanted]
    if len({message.id for message in found}) < len(wanted):
        found = [message for message in _look(settings, unsigned=True) if message.id in wanted]
    return found


def _why_not_sent_back(message: "DeadLetter | None", *, unsigned: bool) -> str:
    if message is None:
        return _NOT_HERE
    if not message.can_be_requeued:
        return "can't be decoded" if message.defect else "holds no credit"
    return _NOT_HERE if unsigned or message.authentic else "not signed: needs --unsigned"


def _with_reasons(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in sorted(reasons.items()))


def _queues(chosen: "Mapping[str, DeadLetter]") -> list[str]:
    return sorted({message.queue for message in chosen.values()})


def _count_unsigned(settings: Settings) -> int:
    from worker.messaging.dead_letters import count_unsigned  # noqa: PLC0415  (see above)

    return asyncio.run(count_unsigned(settings.broker))


async def _whether_posted(engine: AsyncEngine, currencies: Currencies, credits_: Sequence[Credit]) -> list[DeadCredit]:
    async def is_posted(credit: Credit) -> bool:
        # A stranger's message may name what no database holds, and so nothing has posted.
        if not all(is_id(text) for text in credit.identity):
            return False
        return (await queries.show_transfer(engine, currencies, *credit.identity)).posted

    return [DeadCredit(credit, await is_posted(credit)) for credit in credits_]


def _list_text(messages: "Sequence[DeadLetter]", currencies: Currencies) -> str:
    heading = ("id", "put aside", "signed", "reason", "what it asks for")
    rows = [(m.id, m.put_aside_at, _signed(m), m.reason, _content(m, currencies)) for m in messages]
    return aligned([heading, *rows]) if rows else "nothing is put aside"


def _signed(message: "DeadLetter") -> str:
    return "authentic" if message.authentic else "NOT SIGNED"


def _content(message: "DeadLetter", currencies: Currencies) -> str:
    if not message.credits:
        return f"{len(message.body)} bytes that can't be decoded" if message.defect else "no credit"
    first, *others = (_win(credit, currencies) for credit in message.credits)
    return f"{first}, and {len(others)} more" if others else first


def _win(credit: Credit, currencies: Currencies) -> str:
    amount = amount_of(currencies, credit.amount_minor, credit.currency)
    return f"{amount} to {credit.player_id} ({' '.join(credit.identity)})"


def _text(message: "DeadLetter", found: Sequence[DeadCredit], currencies: Currencies) -> str:
    facts = [
        ("message", message.id),
        ("put aside", message.put_aside_at),
        ("reason", message.reason),
        ("type", message.message_type),
        ("signed", _signed(message)),
    ]
    if message.defect:
        facts += [("defect", message.defect), ("bytes", message.body[:HEX_BYTES_MAX].hex(" "))]
    rows = [(_win(c.credit, currencies), "paid" if c.posted else "not paid") for c in found]
    return "\n".join((aligned(facts), "\ncredits", aligned(rows) if rows else "  none"))
