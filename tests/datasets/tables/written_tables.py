"""Tables of three images in `folder`, written as people and programs write them."""

import pyarrow as pa
import pyarrow.parquet as pq

from tlcli.datasets.tables.read import read_table
from tlcli.settings import TableColumns

FILES = ("a.jpg", "b.jpg", "in/c.jpg")
PLAIN = "path,label\na.jpg,x\nb.jpg,y\nin/c.jpg,x\n"
ROWS = [("a.jpg", "x"), ("b.jpg", "y"), ("in/c.jpg", "x")]


def rows(folder, name, content, notes=None, **columns):
    """Write a table, and return the paths relative to its folder with the labels."""
    table = folder / name
    if isinstance(content, dict):
        pq.write_table(pa.table(content), table)
    else:
        table.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_table(table, TableColumns(**columns), notes)
    return [(str(image.path).removeprefix(f"{folder}/"), image.label) for image in found]
