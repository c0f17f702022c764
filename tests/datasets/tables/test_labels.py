"""Labels of tables are accepted as they are, or refused where they are unclear."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from written_tables import FILES, rows

from tlcli.datasets.tables.read import read_table
from tlcli.errors import DataError


def labels(folder, *values):
    table = "".join(
        json.dumps({"path": path, "label": value}) + "\n" for path, value in zip(FILES, values, strict=False)
    )
    return [label for _, label in rows(folder, "t.jsonl", table)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["007", "7", "NA"], ["007", "7", "NA"]),
        ([True, False], ["True", "False"]),
        ([1.0, 2.0], ["1.0", "2.0"]),
        (["cat", 3], ["cat", "3"]),
        (["[x]", "(none)"], ["[x]", "(none)"]),
    ],
)
def test_labels_that_are_accepted(folder, values, expected):
    assert labels(folder, *values) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["x", None, None], "row 2: the column label is empty .*, as in 2 rows"),
        (["x", "  "], "row 2: the column label is empty"),
        (["x", "nan"], "row 2: the column label is empty"),
        ([1.0, float("nan")], "row 2: the column label is empty"),
        (["x", ["y"]], r"row 2: the column label holds a list, \['y'\]"),
        ([{"name": "x"}], "row 1: the column label holds an object"),
        (["x", "['y']"], "row 2: the column label holds a list"),
        ([1, 1.0], "mixes types"),
        ([True, 2], "mixes types"),
        (["1", 1], "'1' in row 1 and 1 in row 2, which may mean the same"),
        (["1", "2", "1.0"], "'1' in row 1 and '1.0' in row 3"),
        (["true", "1"], "'true' in row 1 and '1' in row 2"),
    ],
)
def test_labels_that_are_refused(folder, values, message):
    with pytest.raises(DataError, match=message):
        labels(folder, *values)


@pytest.mark.parametrize(
    ("label", "expected", "message"),
    [([0, 1], ["cat", "dog"], None), ([0, -1], None, "row 2: the column label is empty")],
)
def test_class_names_of_hugging_face(folder, label, expected, message):
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    table = pa.table({"image": [{"bytes": None, "path": path} for path in FILES[:2]], "label": label})
    table = table.cast(
        table.schema.set(0, pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), folder / "t.parquet")
    if message:
        with pytest.raises(DataError, match=message):
            read_table(folder / "t.parquet")
    else:
        assert [image.label for image in read_table(folder / "t.parquet")] == expected
