"""CSV files for spreadsheets, which misread UTF-8 without a mark and run text as a formula."""

import codecs
import re

MARK = "\ufeff"
_MARK_BYTES = codecs.BOM_UTF8
# With leading apostrophes, so that a title that begins with some keeps them.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def is_marked(first_bytes: bytes) -> bool:
    """Return whether a file begins with the byte order mark."""
    return first_bytes.startswith(_MARK_BYTES)


def protected(text: str) -> str:
    """Return the cell that a spreadsheet shows as this text."""
    return f"'{text}" if _FORMULA.match(text) else text


def unprotected(cell: str) -> str:
    """Return the text of a cell of a marked file."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
