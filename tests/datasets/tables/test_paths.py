"""Paths in tables are found in any form, or refused with a correction."""

import unicodedata

import pytest
from written_tables import rows

from tlcli.errors import DataError


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_paths_in_either_unicode_form(folder, form):
    other = "NFD" if form == "NFC" else "NFC"
    real = unicodedata.normalize(form, "Größe/ü.jpg")
    (folder / real).parent.mkdir()
    (folder / real).write_bytes(b"")
    written = unicodedata.normalize(other, "Größe/") + unicodedata.normalize(form, "ü.jpg")
    assert rows(folder, "t.csv", f"path,label\n{written},x\n") == [(real, "x")]


@pytest.mark.parametrize("names", [["b", "c"], ["b.jpg", "c.jpg"]])
def test_images_are_found_by_their_names(folder, names):
    (folder / "b.jpg").rename(folder / "in" / "b.jpg")
    notes = []
    table = f"id,label\n{names[0]},x\n{names[1]},y\n"
    assert rows(folder, "t.csv", table, notes) == [("in/b.jpg", "x"), ("in/c.jpg", "y")]
    assert notes == ["columns: images from id, classes from label", f"images found by name in {folder}/in"]


def test_a_path_without_suffix_is_that_of_the_only_image_of_this_stem(folder):
    assert rows(folder, "t.csv", "path,label\nin/c,x\na.jpg,y\n") == [("in/c.jpg", "x"), ("a.jpg", "y")]
    (folder / "in" / "c.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 of the 2 paths in it do not exist, such as in/c"):
        rows(folder, "t.csv", "path,label\nin/c,x\na.jpg,y\n")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (r"C:\\data\\in\\c.jpg".replace("\\\\", "\\"), r"Remove 'C:\\\\data\\\\' at their start: in/c\.jpg exists"),
        ("/kaggle/input/in/c.jpg", "Remove '/kaggle/input/' at their start"),
        ("IN/C.JPG", r"in/c\.jpg exists: correct the case"),
        ("c.jpg", r"in/c\.jpg exists: write the paths with their folders and suffixes"),
        ("'a.jpg'", "Remove the single quotes"),
        ("nowhere.jpg", "Correct the paths, or move the table"),
    ],
)
def test_paths_that_do_not_exist(folder, path, message):
    with pytest.raises(DataError, match=message):
        rows(folder, "t.csv", f"path,label\n{path},x\na.jpg,y\n")
