"""INPUT of predict: files, folders, and lists give the paths that `find` prints."""

import io
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.prediction_inputs import PredictionInputs
from tlcli.errors import DataError, MachineError, UsageError
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.settings import TableColumns
from tlcli.settings.filters import PathPatterns
from tlcli.storage.files import portable_name

ODD = [
    "new\nline.jpg",
    "emoji 🚗.jpg",
    'it\'s "quoted".jpg',
    "comma, tab\t.jpg",
    "-dash.jpg",
    "@at.jpg",
    "\udcff\udce9.jpg",
]


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """Create a folder `photos` in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "in/c.jpg", "in/.hidden.jpg", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def inputs(*names, stdin=b""):
    return PredictionInputs(names, io.BytesIO(stdin))


def test_a_folder_is_sorted_and_skipped_files_are_counted():
    found = inputs("photos")
    assert list(found) == ["photos/a.PNG", "photos/b.jpg", "photos/in/c.jpg"]
    assert +found.skipped == {"hidden files": 1, ".txt": 1}


def test_files_and_folders_come_in_the_order_given():
    found = inputs("photos/in/c.jpg", "photos", "photos/a.PNG")
    assert list(found) == ["photos/in/c.jpg", "photos/a.PNG", "photos/b.jpg", "photos/in/c.jpg", "photos/a.PNG"]


def test_iterating_again_gives_the_same_paths():
    found = inputs("photos", "-", stdin=b"x.jpg\n")
    first = list(found)
    skipped = found.skipped.copy()
    assert list(found) == first
    assert found.skipped == skipped


@pytest.mark.parametrize("count", [3, 3000])
def test_a_full_temporary_folder_is_named(count, tmp_path, monkeypatch, full_disk):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = inputs("-", stdin=b"image.jpg\n" * count)
    with full_disk(20), pytest.raises(MachineError, match=f"file in {tmp_path}: File too large.* TMPDIR"):
        list(found)


def test_a_named_file_may_have_any_suffix():
    assert list(inputs("photos/notes.txt")) == ["photos/notes.txt"]


@pytest.mark.parametrize(
    "typed", ["photos", "photos/", "./photos", "photos//", "../{}/photos", ".", "./", "photos/in/.."]
)
def test_paths_equal_the_output_of_find(tmp_path, typed):
    for name in ODD:
        (tmp_path / "photos" / name).write_bytes(b"")
    typed = typed.format(tmp_path.name)
    printed = subprocess.run(["find", typed, "-type", "f", "-print0"], capture_output=True, check=True).stdout
    expected = [os.fsdecode(path) for path in printed.split(b"\0")[:-1]]
    expected = [path for path in expected if not path.endswith(("notes.txt", ".hidden.jpg"))]
    found = list(inputs(typed))
    assert sorted(found) == sorted(expected)
    assert len(found) == 10


def test_an_absolute_folder_gives_absolute_paths(tmp_path):
    assert list(inputs(str(tmp_path / "photos" / "in"))) == [str(tmp_path / "photos/in/c.jpg")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_list_keeps_its_order(tmp_path, ending):
    (tmp_path / "list.txt").write_bytes(ending.join([b"photos/b.jpg", b"", b" spaced .jpg", b"missing.jpg", b"last"]))
    assert list(inputs("@list.txt")) == ["photos/b.jpg", " spaced .jpg", "missing.jpg", "last"]


def test_a_list_on_standard_input():
    assert list(inputs("-", "photos/b.jpg", stdin=b"one.jpg\ntwo.jpg")) == ["one.jpg", "two.jpg", "photos/b.jpg"]


def test_standard_input_is_read_only_once():
    assert list(inputs("-", "-", stdin=b"one.jpg\n")) == ["one.jpg", "one.jpg"]


def test_a_list_may_contain_any_name(tmp_path):
    paths = [str(tmp_path / name) for name in ODD]
    for path in paths:
        Path(path).write_bytes(b"")
    plain = b"\n".join(os.fsencode(path) for path in paths[1:])
    assert list(inputs("-", stdin=plain)) == paths[1:]
    # As predict writes them; a name with a newline must be a URI.
    newline = "file://" + paths[0].replace("\n", "%0A")
    written = [newline] + [portable_name(path) for path in paths[1:]]
    assert list(inputs("-", stdin="\n".join(written).encode())) == paths


def test_odd_names_can_be_typed(tmp_path):
    names = [f"./{name}" for name in ODD]
    for name in names:
        Path(name).write_bytes(b"")
    assert list(inputs(*names)) == names


def test_inputs_may_be_file_uris(tmp_path):
    photos = tmp_path / "photos"
    (tmp_path / "a list.txt").write_text("x.jpg\n")
    assert list(inputs(f"file://{photos}/b.jpg", f"@{(tmp_path / 'a list.txt').as_uri()}")) == [
        f"{photos}/b.jpg",
        "x.jpg",
    ]
    assert list(inputs((photos / "in").as_uri())) == [f"{photos}/in/c.jpg"]


def test_a_table_gives_its_image_column(tmp_path):
    (tmp_path / "photos" / "t.csv").write_text("Image;Class\nb.jpg;x\nin\\c.jpg;\nmissing.jpg;y\n")
    (tmp_path / "t.jsonl").write_text('{"photo": "photos/b.jpg", "file": "x"}\n')
    by_name = PredictionInputs(("t.jsonl",), io.BytesIO(), columns=TableColumns(image_column="Photo"))
    assert list(inputs("photos/t.csv")) == ["photos/b.jpg", "photos/in/c.jpg", "photos/missing.jpg"]
    assert list(by_name) == ["photos/b.jpg"]
    with pytest.raises(DataError, match="2 columns that may hold the images: photo, file"):
        list(inputs("t.jsonl"))
    with pytest.raises(UsageError, match="--image-column has no effect: no INPUT is a table"):
        PredictionInputs(("photos",), io.BytesIO(), columns=TableColumns(image_column="Photo"))


@pytest.mark.parametrize("name", ["missing", "photos/missing.jpg", "@missing.txt"])
def test_a_missing_input(name):
    with pytest.raises(DataError, match=r"^(photos/)?missing\S* does not exist"):
        inputs("photos", name)


def test_a_folder_as_a_list():
    with pytest.raises(DataError, match="photos"):
        list(inputs("@photos"))


def test_a_folder_that_cannot_be_listed_is_counted(public_path, unprivileged):
    for name in ("a", "b"):
        (public_path / name).mkdir()
        (public_path / name / "1.jpg").write_bytes(b"")
    (public_path / "a").chmod(0)
    found = inputs(str(public_path))
    with unprivileged():
        assert list(found) == [str(public_path / "b/1.jpg")]
    assert found.unlisted == [f"{public_path / 'a'} cannot be listed: Permission denied"]


def test_the_listing_does_not_change_when_files_do(tmp_path):
    listed = inputs("photos")
    before = list(listed)
    (tmp_path / before[0]).unlink()
    (tmp_path / "photos" / "later.jpg").write_bytes(b"")
    assert list(listed) == before
    assert "No such file" in read_image(before[0], DecodeOptions()).error


def test_two_iterators_are_independent():
    listed = inputs("photos", "-", stdin=b"one.jpg\ntwo.jpg\n")
    assert [one == other for one, other in zip(listed, listed, strict=True)] == [True] * len(list(listed))
    assert len(list(listed)) > 2


def test_a_folder_is_listed_as_a_dataset_is(tmp_path):
    for name in ("real/cat/1.jpg", "real/more/2.jpg", "data/dog/3.jpg", "data/dog/@eaDir/4.jpg", "data/dog/._5.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "data/cat").symlink_to("../real/cat")
    (tmp_path / "data/dog/more").symlink_to("../../real/more")
    (tmp_path / "data/dog/loop").symlink_to("..")
    (tmp_path / "data/dog/gone.jpg").symlink_to("nowhere.jpg")
    found, dataset = inputs("data"), open_dataset(Path("data"))
    assert list(found) == [sample.path for sample in dataset.samples]
    assert len(dataset.samples) == 4
    assert +found.skipped == dataset.skipped == {"in @eaDir": 1, "._*": 1, "linked twice": 1}


def test_filters_apply_to_paths_below_a_folder_and_to_files_as_typed_or_listed(tmp_path):
    Path("list.txt").write_text("photos/b.jpg\nx_mask.jpg\n")
    filters = PathPatterns(exclude=("in/", "*_mask.*", "/b.jpg", "missing"))
    found = PredictionInputs(("photos", "photos/in/c.jpg", "photos/b.jpg", "@list.txt"), io.BytesIO(), filters=filters)
    assert list(found) == ["photos/a.PNG", "photos/b.jpg", "photos/b.jpg"]
    assert found.skipped["excluded"] == 5
    assert found.unused_filters() == ["--exclude 'missing'"]
