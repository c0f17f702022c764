"""Which files are images by their names, which are leftovers of other programs, and how both are counted."""

import io

import pytest
from PIL import Image

from tlcli.datasets.image_files import (
    describe_skipped,
    has_image_suffix,
    is_hidden,
    other_suffix,
    skipped_file,
    skipped_folder,
)
from tlcli.images.decode import decode


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPG", "a.JpEg", "a.b.png", "a.WEBP", "a.tif", "a.TIFF", "a.gif", ".a.bmp"]
)
def test_image_suffixes_in_upper_and_lower_case(name):
    assert has_image_suffix(name)


@pytest.mark.parametrize("name", ["a.txt", "jpg", "a", "a.jpg.txt", "a.jpg~", "Thumbs.db", ".jpg"])
def test_other_suffixes(name):
    assert not has_image_suffix(name)


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        *((suffix, "JPEG") for suffix in (".jpe", ".jfif", ".pjpeg", ".pjp")),
        (".mpo", "MPO"),
        (".apng", "PNG"),
        (".dib", "DIB"),
    ],
)
def test_rare_suffixes_are_images_that_decode(suffix, form):
    file = io.BytesIO()
    more = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if form in {"MPO", "PNG"} else {}
    Image.new("RGB", (8, 8), "red").save(file, form, **more)
    assert has_image_suffix(f"a{suffix}")
    red, *others = decode(file.getvalue(), 3).getpixel((0, 0))
    assert red > 250
    assert max(others) < 5


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("@eaDir", "in @eaDir"),
        ("@EADIR", "in @eaDir"),
        ("__MACOSX", "in __MACOSX"),
        ("lost+found", "in lost+found"),
        (".Trashes", "in .Trashes"),
        (".Trash-1000", "in .Trash"),
        ("$Recycle.Bin", "in $RECYCLE.BIN"),
        ("System Volume Information", "in System Volume Information"),
        (".ipynb_checkpoints", "in .ipynb_checkpoints"),
        ("#recycle", "in #recycle"),
        (".git", "hidden folders"),
        ("eaDir", None),
        ("trash", None),
    ],
)
def test_folders_of_other_programs_are_named(name, reason):
    assert skipped_folder(name) == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Thumbs.db", "Thumbs.db"),
        ("thumbs.DB", "Thumbs.db"),
        ("desktop.ini", "desktop.ini"),
        ("._a.jpg", "._*"),
        (".DS_Store", ".DS_Store"),
        (".a.jpg", "hidden files"),
        ("a.jpg", None),
        ("a.txt", None),
    ],
)
def test_files_of_other_programs_are_named(name, reason):
    assert skipped_file(name) == reason


@pytest.mark.parametrize(
    ("name", "reason"), [("a.TXT", ".txt"), ("a", "without a suffix"), ("a.jpg~", ".jpg~"), ("a.é x", "other suffixes")]
)
def test_files_that_are_no_images_are_counted_by_suffix(name, reason):
    assert other_suffix(name) == reason


def test_skipped_files_are_described_in_one_line():
    skipped = {"in @eaDir": 1200, ".txt": 3, "._*": 2, ".xml": 120, "without a suffix": 1, ".DS_Store": 1}
    assert describe_skipped(skipped) == (
        "1,200 in @eaDir, 2 ._*, 1 .DS_Store, not images: .xml 120, .txt 3, without a suffix 1"
    )
    assert describe_skipped({f".{n}": 1 for n in range(10)}) == (
        "not images: .0 1, .1 1, .2 1, .3 1, .4 1, .5 1, .6 1, .7 1, 2 more 2"
    )


def test_hidden_names_start_with_a_dot():
    assert is_hidden("._a.jpg")
    assert not is_hidden("a.jpg")
