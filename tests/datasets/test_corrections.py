"""Corrections of labels: by the bytes of images, before classes, splits, and groups are derived."""

import csv
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlcli.datasets.corrections import Corrections
from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.tables.correction_table import CORRECTION_COLUMNS, read_corrections
from tlcli.errors import DataError
from tlcli.features.file_digests import DigestReader
from tlcli.progress import Silent
from tlcli.settings.filters import PathPatterns


def write(path, content=None):
    """Write a file; by default, its content is its name, so that all files differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.name.encode() if content is None else content)
    return path


def digest(content):
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


@pytest.fixture
def data(tmp_path):
    for name in ("cat/1.jpg", "cat/2.jpg", "cat/three.jpg", "dog/4.jpg", "dog/5.jpg"):
        write(tmp_path / "data" / name)
    return tmp_path / "data"


@pytest.fixture
def table(tmp_path):
    """Write a table of corrections. A row is a path below the table's folder, the old label, and the new one."""

    def write_table(*rows, name="corrections.csv"):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows(
                [CORRECTION_COLUMNS, *([path, digest(Path(path).name), old, new] for path, old, new in rows)]
            )
        return tmp_path / name

    return write_table


def opened(data, file, **options):
    """Open DATA with corrections. Return the class of each image by its path, the dataset, and the files read."""
    read = []

    def read_digests(paths):
        read.extend(os.path.relpath(path, data) for path in paths)
        return [hashlib.sha256(Path(path).read_bytes()).digest() for path in paths]

    corrections = Corrections(table=read_corrections(file), read_digests=read_digests)
    dataset = open_dataset(data, corrections=corrections, **options)
    folder = data if data.is_dir() else data.parent
    labels = {os.path.relpath(sample.path, folder): dataset.classes[sample.label] for sample in dataset.samples}
    return labels, dataset, read


def test_labels_are_corrected_and_images_without_a_label_are_left_out(data, table, report):
    file = table(("data/cat/1.jpg", "cat", "dog"), ("data/dog/4.jpg", "dog", ""))
    labels, dataset, _ = opened(data, file)
    assert labels == {"cat/1.jpg": "dog", "cat/2.jpg": "cat", "cat/three.jpg": "cat", "dog/5.jpg": "dog"}
    assert dataset.corrections.to_json() == {
        "file": str(file),
        "corrected": 1,
        "left_out": 1,
        "already_correct": 0,
        "unmatched": 0,
    }
    assert len(dataset.corrections.left_out_digests) == 1
    describe_dataset(dataset, report)
    assert f"Labels    1 corrected, 1 image left out ({file})" in report.notes
    assert report.warnings == []
    assert dataset.options() == f" --corrections {file}"


def test_only_files_that_may_match_are_read(data, table):
    write(data / "dog" / "copy.jpg", b"1.jpg")
    labels, _, read = opened(data, table(("data/cat/1.jpg", "cat", "dog")))
    assert labels["cat/1.jpg"] == labels["dog/copy.jpg"] == "dog"
    assert read[0] == "cat/1.jpg"
    assert sorted(read) == ["cat/1.jpg", "cat/2.jpg", "dog/4.jpg", "dog/5.jpg", "dog/copy.jpg"]  # of the same size


def test_moved_images_and_all_copies_are_corrected(data, table):
    file = table(("data/cat/three.jpg", "cat", "bird"), ("data/dog/5.jpg", "dog", "cat"))
    (data / "cat" / "three.jpg").rename(data / "cat" / "moved.jpg")
    write(data / "cat" / "again.jpg", b"three.jpg")
    labels, dataset, read = opened(data, file)
    assert labels["cat/moved.jpg"] == labels["cat/again.jpg"] == "bird"
    assert labels["dog/5.jpg"] == "cat"
    assert dataset.corrections.corrected == 3
    assert read[0] == "dog/5.jpg"
    assert len(read) == len(set(read)) == 6


def test_paths_may_be_absolute_and_other_columns_are_ignored(data, tmp_path):
    file = tmp_path / "elsewhere" / "table.csv"
    write(file, f"Digest,note,path,old,new\n{digest('5.jpg').upper()},x,{data / 'dog/5.jpg'},dog,cat\n".encode())
    labels, _, read = opened(data, file)
    assert labels["dog/5.jpg"] == "cat"
    assert read[0] == "dog/5.jpg"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_other_tables(data, tmp_path, suffix):
    rows = [
        {"path": "data/cat/1.jpg", "digest": digest("1.jpg"), "old": "cat", "new": None},
        {"path": "data/cat/2.jpg", "digest": digest("2.jpg"), "old": "cat", "new": "dog"},
    ]
    file = tmp_path / f"table.{suffix}"
    if suffix == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    labels, _, _ = opened(data, file)
    assert "cat/1.jpg" not in labels
    assert labels["cat/2.jpg"] == "dog"


def test_a_class_may_appear_and_disappear(data, table):
    file = table(("data/dog/4.jpg", "dog", "wolf"), ("data/dog/5.jpg", "dog", " ant "))
    labels, dataset, _ = opened(data, file)
    assert dataset.classes == ("ant", "cat", "wolf")
    assert (labels["dog/4.jpg"], labels["dog/5.jpg"]) == ("wolf", "ant")


def test_all_splits_and_groups_are_corrected(tmp_path, table):
    names = {"1.jpg": "train", "2.jpg": "train", "3.jpg": "train", "4.jpg": "val", "5.jpg": "test"}
    for name in names:
        write(tmp_path / name)
    (tmp_path / "data.csv").write_text(
        "path,label,split,group\n"
        + "".join(f"{name},{'dog' if name == '1.jpg' else 'cat'},{split},g\n" for name, split in names.items())
    )
    file = table(("2.jpg", "cat", ""), ("4.jpg", "cat", "dog"), ("5.jpg", "cat", "dog"))
    labels, dataset, _ = opened(tmp_path / "data.csv", file)
    assert labels == {"1.jpg": "dog", "3.jpg": "cat", "4.jpg": "dog", "5.jpg": "dog"}
    assert [(sample.split, sample.group) for sample in dataset.samples] == [
        ("train", "g"),
        ("train", "g"),
        ("validation", "g"),
        ("test", "g"),
    ]


def test_a_new_class_needs_training_images(tmp_path, table):
    for name in ("train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg"):
        write(tmp_path / "data" / name)
    with pytest.raises(
        DataError, match=r"class 'bird' of .*test/cat/3\.jpg \(test\) is not one of the 2 classes of train"
    ):
        opened(tmp_path / "data", table(("data/test/cat/3.jpg", "cat", "bird")))


def test_images_in_tars_are_corrected(tmp_path, table):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for key, label in (("1", "cat"), ("2", "dog"), ("3", "dog")):
            for name in (f"{key}.jpg", f"{key}.cls"):
                content = (name if name.endswith("jpg") else label).encode()
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    reader = DigestReader(None, workers=1, report=Silent())
    for path in ("s.tar/3.jpg", "other/3.jpg"):
        corrections = reader.corrections(table((path, "dog", "cat")))
        dataset = open_dataset(tmp_path / "s.tar", corrections=corrections)
        assert [dataset.classes[sample.label] for sample in dataset.samples] == ["cat", "dog", "cat"]


def test_corrections_that_match_nothing_are_refused(data, table):
    file = table(("data/cat/1.jpg", "cat", "dog"), ("data/cat/2.jpg", "cat", "dog"))
    for name in ("1.jpg", "2.jpg"):
        (data / "cat" / name).write_bytes(b"changed " + name.encode())
    with pytest.raises(DataError, match=r"none of the 2 corrections in .* such as that of data/cat/1\.jpg") as caught:
        opened(data, file)
    assert caught.value.exit_code == 4


def test_corrections_that_partly_match_are_applied_with_a_warning(data, table, report):
    file = table(("data/cat/1.jpg", "cat", "dog"), ("data/cat/9.jpg", "cat", "dog"), ("data/cat/2.jpg", "cat", "dog"))
    labels, dataset, _ = opened(data, file, filters=PathPatterns(exclude=("2.jpg",)))
    assert labels["cat/1.jpg"] == "dog"
    describe_dataset(dataset, report)
    (warning,) = report.warnings
    assert warning.startswith(f"2 of the 3 corrections in {file} match no image, such as that of data/cat/9.jpg")
    assert dataset.corrections.to_json()["unmatched"] == 2


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("bird", r"cat/1\.jpg has the label 'cat' in .*, but .*, row 1 \(line 2\) changes 'dog' to 'bird'"),
        ("", r"cat/1\.jpg has the label 'cat' in .*, but .*, row 1 \(line 2\) leaves it out of 'dog'"),
    ],
)
def test_an_image_that_was_relabeled_is_a_conflict(data, table, new, message):
    with pytest.raises(DataError, match=message + ".* To keep 'cat', remove the row"):
        opened(data, table(("data/cat/1.jpg", "dog", new)))


def test_an_image_that_has_the_new_label_is_already_correct(data, table, report):
    file = table(("data/cat/1.jpg", "dog", "cat"), ("data/cat/2.jpg", "cat", "dog"))
    labels, dataset, _ = opened(data, file)
    assert (labels["cat/1.jpg"], labels["cat/2.jpg"]) == ("cat", "dog")
    describe_dataset(dataset, report)
    assert f"Labels    1 corrected, 1 already correct ({file})" in report.notes


def test_copies_in_two_classes_get_the_new_label(data, table):
    write(data / "dog" / "copy.jpg", b"1.jpg")
    for new in ("dog", "bird"):
        labels, _, _ = opened(data, table(("data/cat/1.jpg", "cat", new)))
        assert labels["cat/1.jpg"] == labels["dog/copy.jpg"] == new
    labels, dataset, _ = opened(data, table(("data/cat/1.jpg", "cat", "")))
    assert labels.keys().isdisjoint({"cat/1.jpg", "dog/copy.jpg"})
    assert dataset.corrections.left_out == 2
    with pytest.raises(DataError, match=r"has the label 'dog' in .* changes 'bird' to 'cat'"):
        opened(data, table(("data/cat/1.jpg", "bird", "cat")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column path; it has none"),
        ("path,digest,old,new\n", "has no rows"),
        ("path,digest,old\na,b,c\n", "lacks the column new; it has path, digest, old"),
        ("path,digest,old,new,New\na,b,c,d,e\n", "has two columns called 'new' and 'New'"),
        ("path,digest,old,new\na,12,cat,dog\n", r"row 1 \(line 2\): the digest is '12'; expected the SHA-256"),
        (f"path,digest,old,new\na,{'g' * 64},cat,dog\n", "row 1 .* the digest is 'ggg"),
        (f"path,digest,old,new\na,{'0' * 64},,dog\n", "row 1 .* the column old is empty"),
        (f"path,digest,old,new\n,{'0' * 64},cat,dog\n", "row 1 .* the column path is empty"),
        (
            "path,digest,old,new\n" + "".join(f"{new}.jpg,{'0' * 64},cat,{new}\n" for new in ("dog", "")),
            r"row 1 \(line 2\) and row 2 \(line 3\) have the same digest, .* 'dog' and none\. Remove one",
        ),
    ],
)
def test_malformed_tables_are_refused(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_corrections(tmp_path / "table.csv")


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv cannot be read as a \.csv table: No such file"):
        read_corrections(tmp_path / "none.csv")


def test_new_labels_that_look_like_a_class_are_refused(data, table):
    for rows in ([("data/cat/1.jpg", "cat", "Dog")], [("data/cat/1.jpg", "cat", "b"), ("data/cat/2.jpg", "cat", "B")]):
        with pytest.raises(
            DataError, match=r"the new label '[DB].*' looks like the class '[db].*': they differ only in"
        ):
            opened(data, table(*rows))


def test_the_classes_of_a_run_are_kept(data, table):
    write(data / "bird" / "6.jpg")
    file = table(("data/bird/6.jpg", "bird", "dog"))
    labels, dataset, _ = opened(data, file, classes=("cat", "dog", "wolf"))
    assert labels["bird/6.jpg"] == "dog"
    assert dataset.classes == ("cat", "dog", "wolf")
    with pytest.raises(
        DataError, match=r"row 1 .* the new label 'dog' is not one of the 2 classes of the run: bird, cat"
    ):
        opened(data, file, classes=("bird", "cat"))
