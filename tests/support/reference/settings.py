"""docs/reference/settings.md, from the settings' types and the descriptions beside their fields."""

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.providers.base import IntegrationSettings
from gateway.providers.registry import PROVIDERS
from shared.settings import CellSettings, Settings
from tests.support.reference.attributes import description, own_descriptions
from tests.support.reference.markdown import bullet, described, in_brackets, section, sentence
from tests.support.reference.markdown import page as render

INTRODUCTION: Final = """
One TOML file, `credits.toml` or the one that `CREDITS_CONFIG` names, holds the settings of all processes. Variables
override it: `CREDITS_BROKER__URL` is `[broker] url`, `CREDITS_OPERATOR__USERS__NAME__ROLE` is
`[operator.users.NAME] role`. A list may be written as one text; in a variable several items are a JSON list.
Variables that Kubernetes injects for services named `credits...`, such as `CREDITS_PORT=tcp://...`, are ignored.

A wrong value, an unknown key or a missing secret stops the start with exit code 3 and one line that names the file
or the variable. Settings are read at the start: restart a process to have it follow a change.

More about them: [providers](../providers/index.md), [security](../operations/security.md),
[RabbitMQ](../operations/cluster.md), [shards](../operations/scale.md), [PostgreSQL](../operations/database.md),
[the cache](../operations/cache.md), [cells](../operations/cells.md), [sizing](../operations/sizing.md).
"""

INTEGRATIONS: Final = """
NAME is the first part of the callbacks' path; a provider may have several integrations. NAME is part of the money's
identity: a renamed integration pays again what it has paid, so never rename one by editing the file. Two integrations
stop the start if they share a secret and one signed request would be right for both.
"""


def page() -> str:
    """Return the page."""
    return render("Settings", INTRODUCTION, [*_tables(Settings, ""), *_integrations()])


def _tables(class_: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield a section for each table below `class_`."""
    for name, field in class_.model_fields.items():
        inner, type_ = f"{prefix}{name}", _model(field.annotation)
        if type_ is CellSettings:
            yield section("`[cells.NAME]`", _about(type_, inner), _items(type_))
        elif type_ is not None and get_origin(field.annotation) is dict:
            yield section(f"`[{inner}.NAME]`", _about(type_, inner), _items(type_))
        elif type_ is not None:
            yield section(f"`[{inner}]`", _about(type_, inner), _items(type_))
            yield from _tables(type_, f"{inner}.")
        elif prefix == "" and name != "integrations":
            yield section(f"`[{inner}] CODE`", described(description(class_, name), inner), [])


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the type of a table, or of the tables of a mapping."""
    of = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
    return of if isinstance(of, type) and issubclass(of, BaseModel) else None


def _about(class_: type[BaseModel], name: str) -> str:
    """Return what follows the name of the table in a docstring."""
    return _capitalized(described(class_.__doc__, name).partition(": ")[2])


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _items(class_: type[BaseModel], names: list[str] | None = None) -> list[str]:
    fields, own = class_.model_fields, own_descriptions(class_)
    return [
        _item(class_, name, fields[name])
        for name in (sorted(fields, key=lambda each: each not in own) if names is None else names)
        if class_ is CellSettings or _model(fields[name].annotation) is None
    ]


def _item(class_: type[BaseModel], name: str, field: FieldInfo) -> str:
    described_as = described(description(class_, name), f"{class_.__name__}.{name}")
    text = sentence(_capitalized(described_as.removeprefix("DECISION: ")))
    facts = [fact for fact in (_default(field), _values(field)) if fact]
    return bullet(f"**`{name}`**{in_brackets(facts)}: {text}")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel) or value in (None, "", (), {}):
        return ""
    return f"default `{value if isinstance(value, str) else json.dumps(value)}`"


def _values(field: FieldInfo) -> str:
    """Return which values a field may have, where its type says so."""
    arguments = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Enum):
        arguments = tuple(each.value for each in field.annotation)
    if arguments:
        return "one of " + ", ".join(f"`{each}`" for each in arguments)
    found: dict[str, Any] = {}
    for each in field.metadata:
        for name in ("ge", "gt", "le"):
            found |= {name: getattr(each, name)} if hasattr(each, name) and not _is_length(each) else {}
    if "ge" in found and "le" in found:
        return f"{found['ge']} to {found['le']}"
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    return ", ".join(f"{words[name]} {bound}" for name, bound in found.items())


def _is_length(metadata: object) -> bool:
    return isinstance(metadata, annotated_types.MinLen | annotated_types.MaxLen)


def _integrations() -> Iterator[str]:
    yield section("`[integrations.NAME]`", INTEGRATIONS, _items(IntegrationSettings))
    for name, provider in PROVIDERS.items():
        shared = IntegrationSettings.model_fields
        own = [each for each in own_descriptions(provider.settings_type) if each not in shared]
        about = "" if own else "It has no settings of its own."
        yield section(f'`provider = "{name}"`', about, _items(provider.settings_type, own), level=3)
