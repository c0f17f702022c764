"""Read tables in Parquet, column by column."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlcli.datasets.tables.headers import is_label_header
from tlcli.datasets.tables.raw_table import RawTable
from tlcli.errors import DataError
from tlcli.storage.urls import Location

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 256
"""Rows of images to read at once."""


def read_parquet(path: Location, content: bytes | None) -> RawTable:
    """Read a Parquet file. Values keep their types; binary values become text, if they are UTF-8.

    Args:
        path: The file, or where it came from.
        content: Its bytes; None reads them from `path`.

    Raises:
        DataError: The file is damaged, or has image bytes in place of paths.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(Path(path) if content is None else io.BytesIO(content))
        schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a Parquet table: {error}", path=path) from error
    class_names = _class_names(schema)

    def column(name: str) -> Sequence[object]:
        kind = schema.field(name).type
        try:
            if pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes", "path"}:
                return _paths_of_images(path, file, name, class_names)
            values = file.read(columns=[name], use_pandas_metadata=False)[name].to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: the column {name} cannot be read: {error}", path=path) from error
        return [_decoded(value) for value in values] if _is_binary(kind) else values

    return RawTable(
        path=path,
        names=tuple(schema.names),
        texts=frozenset(field.name for field in schema if _is_text(field.type)),
        column=column,
        class_names=class_names,
    )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(check(value) for check in checks)


def _decoded(value: object) -> object:
    """Return binary text as text. Other bytes stay, and are refused with the number of their row."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _class_names(schema: pa.Schema) -> dict[str, Sequence[str]]:
    """Return the class names that Hugging Face's `datasets` stores for columns of numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        known = {name: one for name, one in features.items() if one.get("_type") == "ClassLabel"}
        return {name: tuple(map(str, one["names"])) for name, one in known.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _paths_of_images(
    path: Location, file: pq.ParquetFile, name: str, class_names: dict[str, Sequence[str]]
) -> list[object]:
    """Return the paths of Hugging Face's images; images whose bytes are in the table itself are refused."""
    paths: list[object] = []
    for batch in file.iter_batches(BATCH_ROWS, columns=[name]):
        values = batch.column(0).to_pylist()
        if any(value and value["bytes"] is not None for value in values):
            raise image_bytes_error(path, name, file.schema_arrow.names, class_names)
        paths += [value and value["path"] for value in values]
    return paths


def image_bytes_error(
    path: Location, name: str, names: Iterable[str], class_names: Mapping[str, object], *, in_object: bool = True
) -> DataError:
    """Return the error about a column with the bytes of images, with a command that writes them to folders.

    Args:
        path: The table.
        name: The column.
        names: All columns.
        class_names: Names that the numbers of a column stand for, by column.
        in_object: Whether the values are objects with the key `bytes`.
    """
    label = next((one for one in (*class_names, *names) if one in class_names or is_label_header(one)), "")
    file, stem, column, key = (json.dumps(text, ensure_ascii=False) for text in (str(path), path.stem, name, label))
    names_of, folder = "", f"str(row[{key}])" if label else '""'
    if label in class_names:
        features = f'json.loads(pq.read_schema({file}).metadata[b"huggingface"])["info"]["features"]'
        names_of, folder = f'names = {features}[{key}]["names"]; ', f"names[row[{key}]]"
    content = f'row[{column}]["bytes"]' if in_object else f"row[{column}]"
    code = (  # on one line, because messages are
        f"import json, pathlib, pyarrow.parquet as pq; {names_of}"
        f"[((folder := pathlib.Path({stem}, {folder})).mkdir(parents=True, exist_ok=True), "
        f'(folder / f"{{number}}.jpg").write_bytes({content})) '
        f"for number, row in enumerate(pq.read_table({file}).to_pylist())]"
    )
    return DataError(
        f"{path} holds the bytes of the images in its column {name}; expected paths of files. Write the images to a "
        f"folder per class, and pass the folder {shlex.quote(path.stem)} instead: python -c {shlex.quote(code)}",
        path=path,
    )
