"""Structured logs: an event and its fields, as text for people or JSON lines for programs.

What is logged names integrations, ids, outcomes and durations; never a body, a secret or a signature.
"""

import logging
import sys

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from shared.settings import LogSettings

_json = msgspec.json.Encoder(enc_hook=str)
# Not the renderer's own tracebacks: those print local variables, and with them secrets.
_text = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


def set_up_logging(settings: LogSettings) -> None:
    """Send this project's events, and what libraries log, to standard error in one format."""
    steps: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if settings.format == "json":
        steps.append(structlog.processors.format_exc_info)
    renderer: Processor = _render_json if settings.format == "json" else _text
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


def _render_json(_logger: object, _method: str, event: EventDict) -> str:
    return _json.encode(event).decode()
