"""The few forms of Markdown that the generated pages have, in lines of at most 120 columns."""

import re
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Final

COLUMNS_MAX: Final = 120

GENERATED: Final = "<!-- Made from the code by `make docs`; edit the descriptions there. -->"


class UndescribedError(Exception):
    """Something that users meet has no description in the code."""


def described(text: str | None, name: str) -> str:
    """Return a description on one line. Raises UndescribedError where there is none."""
    if not (text or "").strip():
        raise UndescribedError(f"{name} has no description")
    return " ".join((text or "").split())


def paragraph(text: str) -> str:
    """Return a text wrapped."""
    return fill(" ".join(text.split()), COLUMNS_MAX, break_long_words=False, break_on_hyphens=False)


def bullet(text: str, level: int = 0) -> str:
    """Return an item of a list, wrapped."""
    indent = "  " * level
    line = " ".join(text.split())
    return fill(
        line,
        COLUMNS_MAX,
        initial_indent=f"{indent}- ",
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def in_brackets(facts: Sequence[str]) -> str:
    """Return facts in brackets, or nothing where there are none."""
    return f" ({', '.join(facts)})" if facts else ""


def sentence(text: str) -> str:
    """Return a text that ends as a sentence does."""
    return text if text.endswith((".", "?", "!")) else f"{text}."


def page(title: str, introduction: str, sections: Iterable[str]) -> str:
    """Return a page; sections are Markdown already, with their headings."""
    paragraphs = [paragraph(each) for each in re.split(r"\n\s*\n", introduction.strip())]
    return "\n\n".join([f"# {title}", GENERATED, *paragraphs, *sections]) + "\n"


def section(heading: str, introduction: str, items: Iterable[str], level: int = 2) -> str:
    """Return a section: a heading, a paragraph if there is one, a list if there is one."""
    parts = [f"{'#' * level} {heading}", *([paragraph(introduction)] if introduction else []), "\n".join(items)]
    return "\n\n".join(part for part in parts if part)
