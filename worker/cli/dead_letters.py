"""The command `dead`: dead letters, which are messages that could not be decoded or posted, kept for a person."""

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
    CellAnswers,
    cell_to_change,
    cells_to_read,
    collecting_faults,
    print_cell_answer,
    print_found,
)
from worker.cli.context import run_query
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
    help="Dead letters: messages that were put aside because they could not be decoded or posted.",
)
Id = Annotated[str, typer.Argument(metavar="ID", help="As `dead list` names it.")]

HEX_BYTES_MAX: Final = 256
"""How many bytes of a message that can't be decoded are shown."""

_NOT_FOUND: Final = "not put aside"


class DeadCredit(msgspec.Struct, frozen=True):
    """A credit of a dead letter, and whether it is posted by now."""

    credit: Credit
    posted: bool


@dead.command("list")
def list_dead(
    *,
    unsigned: Annotated[
        bool,
        typer.Option("--unsigned", help="Only messages without a valid signature, which have a queue of their own."),
    ] = False,
    cell: Cell = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters with their reasons. Listing removes none."""
    settings = load_settings()
    currencies = Currencies(settings.currencies)
    cells = list(cells_to_read(settings, cell, Part.BROKER))
    answers = CellAnswers[int](has_several_cells=len(cells) > 1)
    for cell_settings in cells:
        name = cell_settings.broker.cell
        with collecting_faults(answers, name):
            letters = _list_dead_letters(cell_settings, unsigned=unsigned)
            messages = [message for message in letters if not (unsigned and message.authentic)]
            listed = {"messages": messages} if answers.has_several_cells else messages
            print_cell_answer(listed, _list_text(messages, currencies), answers.label(name), as_json=as_json)
            answers.by_cell[name] = 0 if unsigned else _count_unsigned(cell_settings)
    if unsigned_count := sum(answers.by_cell.values()):
        warn(f"{unsigned_count} more that nobody has signed are put aside: `dead list --unsigned`")
    answers.fail_if_incomplete()


@dead.command("show")
def show_dead(message_id: Id, *, cell: Cell = None, as_json: AsJson = False) -> None:
    """Show one dead letter: its reason, its credits, and whether each is posted by now."""
    settings = load_settings()
    cells = list(cells_to_read(settings, cell, *Part))
    answers = CellAnswers["Mapping[str, Any]"](has_several_cells=len(cells) > 1)
    for cell_settings in cells:
        with collecting_faults(answers, cell_settings.broker.cell):
            for message in _find_dead_letters(cell_settings, {message_id}):
                credits_ = run_query(cell_settings, _check_posted, message.credits)
                answers.by_cell[cell_settings.broker.cell] = {"message": message, "credits": credits_}

    def text(answer: Mapping[str, Any]) -> str:
        return _text(answer["message"], answer["credits"], Currencies(settings.currencies))

    print_found(answers, text, f"no message {message_id!r} is put aside", as_json=as_json)


@dead.command("send-back")
def requeue_dead(  # noqa: PLR0913  (each is an option)
    message_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="As `dead list` names them.")
    ] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="All messages that can be decoded and that a gateway or worker signed.")
    ] = False,
    unsigned: Annotated[
        bool,
        typer.Option("--unsigned", help="Also the named messages without a valid signature: you vouch for them."),
    ] = False,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Have workers try dead letters again, after their cause was fixed.

    A credit that is already posted moves no money; one that still can't be posted becomes a dead letter again. A
    message without a valid signature is forged, or from a version that did not sign: see `dead show` first.
    """
    if bool(message_ids) is everything:
        raise typer.BadParameter("name messages, or give --all")
    if everything and unsigned:
        raise typer.BadParameter("--unsigned is for messages that are named, each after a look at it")
    from worker.messaging.dead_letters import requeue  # noqa: PLC0415  (loads the broker client)

    named_ids, settings = set(message_ids or ()), cell_to_change(load_settings(), cell, *Part)
    messages = _list_dead_letters(settings, unsigned=False) if everything else _find_dead_letters(settings, named_ids)

    def is_chosen(message: "DeadLetter") -> bool:
        is_named = everything or message.id in named_ids
        return message.can_be_requeued and is_named and (unsigned or message.authentic)

    chosen = {message.id: message for message in messages if is_chosen(message)}
    with audited(settings, actor_named(acting_as), Action.DEAD_SEND_BACK, chosen) as requeued:
        requeued.extend(asyncio.run(requeue(settings.broker, lambda m: m.id in chosen, _queues(chosen))))
        lines = [f"sent back: {message.id}, {counted(len(message.credits), 'credit')}" for message in requeued]
        print_answer(requeued, "\n".join(lines) or "nothing was sent back", as_json=as_json)
    if missing := named_ids - {message.id for message in requeued}:
        found = {message.id: message for message in messages}
        reasons = {name: _why_not_requeued(found.get(name), unsigned=unsigned) for name in missing}
        fail(ExitCode.NO, f"not sent back: {_with_reasons(reasons)}")


@dead.command("drop")
def discard_dead(
    message_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `dead list` names them.")],
    *,
    unpaid: Annotated[
        bool, typer.Option("--unpaid", help="Also messages with a credit that is not paid, or that may have one.")
    ] = False,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Remove dead letters for good, and print them.

    A message with a credit that is not paid stays, unless --unpaid is given. So does one that can't be decoded, since
    it may have such a credit.
    """
    from worker.messaging.dead_letters import discard  # noqa: PLC0415  (see above)

    settings = cell_to_change(load_settings(), cell, *Part)
    messages, currencies = _find_dead_letters(settings, set(message_ids)), Currencies(settings.currencies)
    credits_ = [credit for message in messages for credit in message.credits]
    posted = {c.credit.identity: c.posted for c in run_query(settings, _check_posted, credits_)}

    def credits_of(message: "DeadLetter") -> list[DeadCredit]:
        return [DeadCredit(credit, posted[credit.identity]) for credit in message.credits]

    paid = {m.id for m in messages if not (m.defect or m.unknown_operations) and all(c.posted for c in credits_of(m))}
    discardable = {message.id: message for message in messages if unpaid or message.id in paid}
    with audited(settings, actor_named(acting_as), Action.DEAD_DROP, discardable) as discarded:
        discarded.extend(asyncio.run(discard(settings.broker, lambda m: m.id in discardable, _queues(discardable))))
        text = "\n\n".join(_text(message, credits_of(message), currencies) for message in discarded)
        print_answer(discarded, text or "nothing was dropped", as_json=as_json)
    if kept := set(message_ids) - {message.id for message in discarded}:
        unpaid_ids = {message.id for message in messages} - set(discardable)
        reasons = {name: "not known to be paid: needs --unpaid" if name in unpaid_ids else _NOT_FOUND for name in kept}
        fail(ExitCode.NO, f"not dropped: {_with_reasons(reasons)}")


def _list_dead_letters(settings: Settings, *, unsigned: bool) -> "list[DeadLetter]":
    """Return all dead letters. Those in the queue of messages without a valid signature only if `unsigned`."""
    from worker.messaging.dead_letters import BOTH, list_all  # noqa: PLC0415  (see above)

    return asyncio.run(list_all(settings.broker, BOTH if unsigned else BOTH[:1]))


def _find_dead_letters(settings: Settings, ids: Collection[str]) -> "list[DeadLetter]":
    """Return the dead letters with these ids. The queue of unsigned ones is searched last, as it may be large."""
    found = [message for message in _list_dead_letters(settings, unsigned=False) if message.id in ids]
    if len({message.id for message in found}) < len(ids):
        found = [message for message in _list_dead_letters(settings, unsigned=True) if message.id in ids]
    return found


def _why_not_requeued(message: "DeadLetter | None", *, unsigned: bool) -> str:
    if message is None:
        return _NOT_FOUND
    if message.unknown_operations:
        return f"holds {_unknown_text(message)}"
    if not message.can_be_requeued:
        return "can't be decoded" if message.defect else "holds no credit"
    return _NOT_FOUND if unsigned or message.authentic else "not signed: needs --unsigned"


def _with_reasons(reasons: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in sorted(reasons.items()))


def _queues(chosen: "Mapping[str, DeadLetter]") -> list[str]:
    return sorted({message.queue for message in chosen.values()})


def _count_unsigned(settings: Settings) -> int:
    from worker.messaging.dead_letters import count_unsigned  # noqa: PLC0415  (see above)

    return asyncio.run(count_unsigned(settings.broker))


async def _check_posted(engine: AsyncEngine, currencies: Currencies, credits_: Sequence[Credit]) -> list[DeadCredit]:
    async def is_posted(credit: Credit) -> bool:
        # A forged message may have an id that no database could store, so no such credit is posted.
        if not all(is_id(text) for text in credit.identity):
            return False
        return (await queries.show_transfer(engine, currencies, *credit.identity)).posted

    return [DeadCredit(credit, await is_posted(credit)) for credit in credits_]


def _list_text(messages: "Sequence[DeadLetter]", currencies: Currencies) -> str:
    heading = ("id", "put aside", "signed", "reason", "what it asks for")
    rows = [(m.id, m.put_aside_at, _signature_text(m), m.reason, _content_text(m, currencies)) for m in messages]
    return aligned([heading, *rows]) if rows else "nothing is put aside"


def _signature_text(message: "DeadLetter") -> str:
    return "authentic" if message.authentic else "NOT SIGNED"


def _content_text(message: "DeadLetter", currencies: Currencies) -> str:
    if message.defect:
        return f"{len(message.body)} bytes that can't be decoded"
    unknown = [_unknown_text(message)] * bool(message.unknown_operations)
    if not message.credits:
        return "".join(unknown) or "no credit"
    first, *others = (_credit_text(credit, currencies) for credit in message.credits)
    return ", and ".join([first, *[f"{len(others)} more"] * bool(others), *unknown])


def _unknown_text(message: "DeadLetter") -> str:
    return f"{counted(message.unknown_operations, 'operation')} that this version can't read"


def _credit_text(credit: Credit, currencies: Currencies) -> str:
    amount = amount_of(currencies, credit.amount_minor, credit.currency)
    return f"{amount} to {credit.player_id} ({' '.join(credit.identity)})"


def _text(message: "DeadLetter", credits_: Sequence[DeadCredit], currencies: Currencies) -> str:
    facts = [
        ("message", message.id),
        ("put aside", message.put_aside_at),
        ("reason", message.reason),
        ("type", message.message_type),
        ("signed", _signature_text(message)),
    ]
    if message.defect:
        facts += [("defect", message.defect), ("bytes", message.body[:HEX_BYTES_MAX].hex(" "))]
    elif message.unknown_operations:
        facts += [("unknown", _unknown_text(message)), ("bytes", message.body[:HEX_BYTES_MAX].hex(" "))]
    rows = [(_credit_text(c.credit, currencies), "paid" if c.posted else "not paid") for c in credits_]
    return "\n".join((aligned(facts), "\ncredits", aligned(rows) if rows else "  none"))
