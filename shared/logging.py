"""Structured logs: an event and its fields, as text for people or JSON lines for programs.

What is logged names integrations, ids, outcomes and durations; never a body, a secret or a signature.
"""

import logging
import re
import sys
from typing import Final

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from shared.settings import LogSettings

_WORD: Final = re.compile(r"[\w.:/@+-]+", re.ASCII)
_json = msgspec.json.Encoder(enc_hook=str)


def set_up_logging(settings: LogSettings) -> None:
    """Send this project's events, and what libraries log, to standard error in one format."""
    steps: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # which prints no local variables, and so no secrets
    ]
    renderer: Processor = _render_json if settings.format == "json" else _render_text
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*steps, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _render_text(_logger: object, _method: str, event: EventDict) -> str:
    """Return one line, and a traceback below it. structlog's own, made for colours, takes twice as long."""
    trace = event.pop("exception", None)
    said = str(event.pop("event", ""))
    words = [event.pop("timestamp", ""), event.pop("level", ""), said if said.isprintable() else repr(said)]
    words += [f"{name}={_word(value)}" for name, value in event.items()]
    line = " ".join(words)
    return line if trace is None else f"{line}\n{trace}"


def _word(value: object) -> str:
    """Return a value so that no line can be forged with it: what is no plain word is quoted."""
    text = str(value)
    return text if _WORD.fullmatch(text) else repr(text)


def _render_json(_logger: object, _method: str, event: EventDict) -> str:
    return _json.encode(event).decode()
