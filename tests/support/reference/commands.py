"""docs/reference/commands.md, from the commands themselves."""

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

import typer.main

from gateway.__main__ import cli
from tests.support.reference.attributes import own_descriptions
from tests.support.reference.markdown import (
    bullet,
    described,
    in_brackets,
    paragraph,
    section,
    sentence,
)
from tests.support.reference.markdown import (
    page as render,
)
from worker.cli.app import app
from worker.cli.exit_codes import ExitCode

INTRODUCTION: Final = """
Every command has `--help`. Commands of the worker that answer have `--json`, for one JSON object; errors are one line
on standard error. Settings come from the file that `CREDITS_CONFIG` names (default `credits.toml`) and from
`CREDITS_*` variables, see [settings](settings.md). [Daily work](../operations/support.md) shows them in use.
"""


def page() -> str:
    """Return the page."""
    commands = [
        *_commands(typer.main.get_command(cli), "python -m gateway", is_command=True),
        *_commands(typer.main.get_command(app), "python -m worker"),
    ]
    return render("Commands", INTRODUCTION, [*commands, _exit_codes()])


def _exit_codes() -> str:
    known = own_descriptions(ExitCode)
    return section(
        "Exit codes",
        "Of `python -m worker`; `python -m gateway` ends with 3 for wrong settings and 70 for a defect.",
        [bullet(f"**{code.value}**: {sentence(described(known[code.name], code.name))}") for code in ExitCode],
    )


def _commands(command: Any, name: str, *, is_command: bool = False) -> Iterator[str]:
    """Yield a section for the command, or for each command of the group."""
    inner = getattr(command, "commands", {})
    if is_command or not inner:
        yield _command(command, name)
    for word, each in inner.items():
        yield from _commands(each, f"{name} {word}")


def _command(command: Any, name: str) -> str:
    help_ = command.callback.__doc__ if command.callback else command.help
    first, *others = [described(text, name) for text in (help_ or "").split("\n\n")]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join([name, *(_metavar(p) for p in arguments)])
    items = [_item(p, name) for p in command.params if p.name != "help"]
    head = section(f"`{words}`", first, [])
    return "\n\n".join([head, *map(paragraph, others), *(["\n".join(items)] if items else [])])


def _metavar(parameter: Any) -> str:
    named = parameter.metavar or parameter.name.upper()
    return named if parameter.required else f"[{named}]"


def _item(parameter: Any, command: str) -> str:
    is_argument = parameter.param_type_name == "argument"
    about = sentence(described(parameter.help, f"{command}: {parameter.name}"))
    names = _metavar(parameter) if is_argument else f"{', '.join(parameter.opts)}{_value(parameter)}"
    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
    facts = [
        *(["required"] if parameter.required and not is_argument else []),
        *_default(parameter),
        *_choices(parameter),
    ]
    facts += [f"or `{variable}`" for variable in variables]
    return bullet(f"**`{names}`**{in_brackets(facts)}: {about}")


def _value(parameter: Any) -> str:
    return "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"


def _choices(parameter: Any) -> list[str]:
    type_ = parameter.type_descriptor.annotation
    is_choice = isinstance(type_, type) and issubclass(type_, Enum)
    return [f"one of {', '.join(f'`{each.value}`' for each in type_)}"] if is_choice else []


def _default(parameter: Any) -> list[str]:
    value = parameter.default
    if parameter.required or value in (None, False, "") or callable(value):
        return []
    return [f"default `{value}`"]
