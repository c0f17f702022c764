"""Read tables in JSON: one object per line, or one array of objects."""

from __future__ import annotations

import json
from typing import Any

from tlcli.datasets.tables.raw_table import RawTable
from tlcli.datasets.tables.text_encoding import decode_text
from tlcli.errors import DataError
from tlcli.storage.urls import Location

REMEDY = 'Expected one object per line, such as {"path": "1.jpg", "label": "cat"}, or one array of them.'
PANDAS_REMEDY = f'{REMEDY} With pandas: table.to_json("table.jsonl", orient="records", lines=True).'


def read_json_table(path: Location, content: bytes) -> RawTable:
    """Read JSON Lines, or an array of objects. Values keep the types of JSON.

    Raises:
        DataError: The encoding is unknown, or the content is not JSON of this form.
    """
    text, encoding = decode_text(content, path)
    try:
        records = _records(path, text)
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply for a table. {REMEDY}", path=path) from error
    names = tuple(dict.fromkeys(name for record in records for name in record))
    return RawTable(
        path=path,
        names=names,
        texts=frozenset(names),
        column=lambda name: [record.get(name) for record in records],
        notes=(f"decoded as {encoding}",) if encoding else (),
    )


def _records(path: Location, text: str) -> list[dict[str, Any]]:
    if text.lstrip()[:1] == "[":
        try:
            found = json.loads(text, object_pairs_hook=_unique)
        except ValueError as error:
            raise DataError(f"{path} cannot be read as a JSON array: {error}. {REMEDY}", path=path) from error
        for number, record in enumerate(found, start=1):
            if not isinstance(record, dict):
                raise DataError(f"{path}, row {number:,} is not an object: {str(record)[:60]}. {REMEDY}", path=path)
        return list(found)
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_unique)
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError) and number == 1 and (whole := _whole(text)) is not None:
                raise DataError(
                    f"{path} holds one object over several lines, with {', '.join(list(whole)[:4])}. {PANDAS_REMEDY}",
                    path=path,
                ) from error
            raise DataError(f"{path}, line {number:,} cannot be read: {error}. {REMEDY}", path=path) from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number:,} is not an object: {line[:60]}. {REMEDY}", path=path)
        records.append(record)
    if len(records) == 1 and all(isinstance(value, (dict, list)) for value in records[0].values()):
        raise DataError(
            f"{path} holds one object with {', '.join(list(records[0])[:4]) or 'nothing'}. {PANDAS_REMEDY}", path=path
        )
    return records


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object whose keys are all different."""
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return record


def _whole(text: str) -> dict[str, Any] | None:
    """Return the text as one object, if it is one."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
