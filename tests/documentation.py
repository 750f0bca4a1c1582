"""The pages of the documentation, and the commands and code in them."""

import re
from pathlib import Path
from typing import NamedTuple

from app.config import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
# In the order in which their examples follow one another.
PAGES = [
    PROJECT_ROOT / "README.md",
    DOCS / "api.md",
    *sorted({*DOCS.rglob("*.md")} - {DOCS / "api.md"}),
    PROJECT_ROOT / "CHANGELOG.md",
]


class Step(NamedTuple):
    """A command of a console block with the output that the page shows, if any."""

    page: str
    command: str
    output: str


def name_of(page: Path) -> str:
    """Return a page's path within the project, as links and messages write it."""
    return page.relative_to(PROJECT_ROOT).as_posix()


def text_of(page: str) -> str:
    """Return the text of a page, such as ``docs/api.md``."""
    return (PROJECT_ROOT / page).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    """Return the text under a heading of a page."""
    level, text = re.split(
        rf"^(##+) {re.escape(title)}\n", text_of(page), maxsplit=1, flags=re.MULTILINE
    )[1:]
    return re.split(rf"^##{{1,{len(level) - 1}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]


def code(language: str, text: str) -> list[str]:
    """Return the code blocks of a language in a text."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def steps(page: str) -> list[Step]:
    """Return the commands of a page's console blocks, each with the output that follows it."""
    typed = [step for block in code("console", text_of(page)) for step in block.split("$ ")[1:]]
    return [
        Step(page, command, output.rstrip("\n"))
        for command, _, output in (step.partition("\n") for step in typed)
    ]


def commands() -> list[str]:
    """Return the commands of all pages, in console blocks and within sentences."""
    pages = [name_of(page) for page in PAGES]
    typed = [step.command for page in pages for step in steps(page)]
    inline = [span for page in pages for span in re.findall(r"`([^`\n]+)`", text_of(page))]
    return typed + [span for span in inline if " " in span]


def links(page: Path) -> list[str]:
    """Return the relative links of a page."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in found if "://" not in link]


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on code hosts."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
