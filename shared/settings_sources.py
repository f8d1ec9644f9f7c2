"""Reads settings from one TOML file and the environment, and finds which of the two sets a key."""

import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from shared.errors import SettingsError

PREFIX: Final = "CREDITS_"
DEFAULT_FILE: Final = "credits.toml"
FILE_BYTES_MAX: Final = 1_048_576
NESTING_MAX: Final = 8
"""The number of parts that a variable's name may have."""

_CONFIG: Final = "CREDITS_CONFIG"
_NOT_SETTINGS: Final = frozenset({_CONFIG, "CREDITS_ACTOR", "CREDITS_CELL"})
_TEST_PREFIX: Final = "CREDITS_TEST_"

_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")

# Kubernetes sets variables for every service of a namespace: a service named `credits` or `credits-gateway`
# yields names that begin like ours. To be ignored, both name and value must have exactly its shape.
_SERVICE: Final = r"CREDITS(?:_[A-Z0-9]+)*"
_SERVICE_URL: Final = r"(?:tcp|udp|sctp)://\S+:\d+"
_KUBERNETES: Final = tuple(
    (re.compile(_SERVICE + name), re.compile(value))
    for name, value in (
        ("_SERVICE_HOST", r"[0-9a-fA-F.:]+"),
        ("_SERVICE_PORT(?:_[A-Z0-9]+)*", r"\d+"),
        ("_PORT", _SERVICE_URL),
        (r"_PORT_\d+_(?:TCP|UDP|SCTP)", _SERVICE_URL),
        (r"_PORT_\d+_(?:TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
        (r"_PORT_\d+_(?:TCP|UDP|SCTP)_PORT", r"\d+"),
        (r"_PORT_\d+_(?:TCP|UDP|SCTP)_ADDR", r"[0-9a-fA-F.:]+"),
    )
)

_SETTING: Final = re.compile(r"\[(?P<table>[^\]\s]+)\] (?P<key>\w+)")


def config_file() -> Path | None:
    """Return the path of the settings file, or None if none is named and the default doesn't exist."""
    named = os.environ.get(_CONFIG)
    if named == "":
        return None  # set but empty: the environment holds all settings
    if named is not None:
        return Path(named)
    default = Path(DEFAULT_FILE)
    return default if os.path.lexists(default) else None


def read_config_file() -> dict[str, Any]:
    """Return the contents of the settings file. Raises SettingsError with one line: the file and its fault."""
    path = config_file()
    if path is None:
        return {}
    text = _decode(_read_bytes(path), path)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SettingsError(f"{path}: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError is one; it names line and column, and no value
        raise SettingsError(f"{path}: {error}") from None


def _read_bytes(path: Path) -> bytes:
    named = f"{_CONFIG} names {str(path)!r}" if os.environ.get(_CONFIG) else f"{path}"
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(f"{named}, which is no file{where}")
        if found.st_size > FILE_BYTES_MAX:
            raise SettingsError(f"{named}, which is larger than {FILE_BYTES_MAX} bytes")
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{named}, which can't be read{where}: {error.strerror}") from None


def _decode(content: bytes, path: Path) -> str:
    if content.startswith(_UTF16_MARKS) or b"\0" in content:
        raise SettingsError(f"{path}: is UTF-16 or no text at all; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")  # editors on Windows begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{path}: line {line} is not UTF-8, perhaps Latin-1 or Windows-1252; save it as UTF-8"
        ) from None


def read_environment(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in environment variables, as nested tables. Raises SettingsError for an unknown table.

    Otherwise a misspelt variable would be ignored silently, and a default be in force.
    """
    read: dict[str, Any] = {}
    for name, keys in _variables():
        if keys[0] not in tables:
            raise SettingsError(f"{name}: there is no setting {keys[0]!r}{_hint(keys[0], tables)}")
        value = _value(os.environ[name])
        if len(keys) == 1 and not isinstance(value, dict):
            raise SettingsError(f"{name}: [{keys[0]}] is a table: set {PREFIX}{keys[0].upper()}__KEY, or JSON")
        _merge(read, name, keys, value)
    return read


def _variables() -> Iterator[tuple[str, list[str]]]:
    """Yield each variable that is a setting, with its path of keys; shorter paths come first."""
    seen: dict[str, str] = {}
    for name in sorted(os.environ, key=lambda name: (name.count("__"), name)):
        if not name.upper().startswith(PREFIX) or _is_foreign(name):
            continue
        if (other := seen.setdefault(name.upper(), name)) != name:
            raise SettingsError(f"{other} and {name} are both set, and are the same setting")
        keys = name[len(PREFIX) :].split("__", NESTING_MAX)
        if len(keys) > NESTING_MAX or not all(keys):
            raise SettingsError(f"{name}: is no name of a setting, which is {PREFIX}TABLE__KEY")
        yield name, _as_in_file(name, keys)


def _as_in_file(name: str, keys: list[str]) -> list[str]:
    """Return keys in the case that the file has: lower case, except that a currency's code stays as written."""
    table, *others = (key.lower() for key in keys)
    if table == "currencies":
        others = [key.upper() if name.islower() else key for key in keys[1:]]
    return [table, *others]


def _is_foreign(name: str) -> bool:
    value = os.environ[name]
    return (
        name in _NOT_SETTINGS
        or name.startswith(_TEST_PREFIX)
        or any(shape.fullmatch(name) and content.fullmatch(value) for shape, content in _KUBERNETES)
    )


def _hint(key: str, tables: Mapping[str, Any]) -> str:
    table, _, rest = key.partition("_")
    if table in tables and rest:
        return f"; two underscores stand between table and key: {PREFIX}{table.upper()}__{rest.upper()}"
    return ""


def _value(text: str) -> Any:
    """Return a JSON list or table decoded; return any other text as it is, for the setting's type to parse."""
    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _merge(read: dict[str, Any], name: str, keys: list[str], value: Any) -> None:
    *tables, last = keys
    for key in tables:
        read = read.setdefault(key, {})
        if not isinstance(read, dict):
            raise SettingsError(f"{name}: another variable sets {key!r}, which is no table there")
    read[last] = {**read[last], **value} if isinstance(read.get(last), dict) and isinstance(value, dict) else value


def with_origin(message: str) -> str:
    """Return a message that begins with `[table] key`, prefixed with the source that sets the key."""
    match = _SETTING.match(message)
    if match is None:
        return message
    return f"{origin([*match['table'].split('.'), match['key']])}{message}"


def origin(keys: Sequence[str]) -> str:
    """Return the variable that sets a key, else the settings file, with a colon; "" if there is neither."""
    for name, others in sorted(_variables(), key=lambda variable: -len(variable[1])):
        if all(key == other for key, other in zip(keys, others, strict=False)):
            return f"{name}: "
    file = config_file()
    return "" if file is None else f"{file}: "
