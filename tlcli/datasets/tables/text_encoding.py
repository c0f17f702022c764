"""Decode text files that editors and spreadsheets write: UTF-8, UTF-16, UTF-32, and Windows-1252."""

from __future__ import annotations

import codecs
import re

from tlcli.errors import DataError
from tlcli.storage.urls import Location

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", None),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
PROBE = 4096
"""Bytes that are searched for the zeros of UTF-16."""
NOT_WESTERN = re.compile(
    r"""
    [^\x00-\x7fÀ-ÖØ-öø-ÿœ’“”–…€°²³½«»\xa0]   # other signs
    | [^\x00-\x7f]{3}                         # three in a row
    | [À-ÖØ-Þ][ß-öø-ÿ]                        # a capital and a small letter, both with accents
    | (?<![A-Za-z])[À-ÖØ-öø-ÿœ]{2}(?![A-Za-z])  # a word of two letters with accents
    | (?<![A-Za-zÀ-ÿ])’ | –(?![\s\d]) | (?<![\w ])[°²³½€] | (?<=[A-Za-z])½ | [°²³½][°²³½]
    | “(?![^”]*”) | (?<![“A-Za-z0-9À-ÿ.!? ])” | «(?![^»]*») | (?<![A-Za-z0-9À-ÿ.!? \xa0])»
    """,
    re.VERBOSE,
)
"""Matches what is rare in Western European text, but common in text of another encoding decoded as Windows-1252."""


def decode_text(content: bytes, path: Location) -> tuple[str, str | None]:
    """Decode a text file.

    Returns:
        The text without a byte order mark, and the name of the encoding if it is not UTF-8.

    Raises:
        DataError: The text is in none of these encodings.
    """
    for mark, encoding, name in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return _decode(content, encoding, path), name
    for encoding, zeros in (("utf-16-le", content[1:PROBE:2]), ("utf-16-be", content[0:PROBE:2])):
        others = content[:PROBE].count(0) - zeros.count(0)
        if zeros.count(0) > 0.7 * len(zeros) and not others and len(content) > 1:
            return _decode(content, encoding, path), "UTF-16"
    try:
        return content.decode(), None
    except UnicodeDecodeError as error:
        text = content.decode("cp1252", "replace")
        if b"\0" in content or NOT_WESTERN.search(text):
            raise _unreadable(path, f"not UTF-8 at byte {error.start:,}") from error
    return text, "Windows-1252 (Latin-1), because it is not UTF-8"


def _decode(content: bytes, encoding: str, path: Location) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"{encoding} according to its first bytes, but not at byte {error.start:,}") from error


def _unreadable(path: Location, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be read as a table: its text is {reason}. Save it as UTF-8 (in a spreadsheet: CSV UTF-8), or "
        f"convert it: iconv -f ENCODING -t UTF-8 {path} > utf8{path.suffix}",
        path=path,
    )
