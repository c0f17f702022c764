"""Walking folders: which files are images, in which order, and the counts of skipped files."""

import os
from collections import Counter

import pytest

from tlcli.datasets.image_files import has_image_suffix, is_hidden, walk_images
from tlcli.images.worker import DecodeOptions, read_image


def refuse(problem):
    raise AssertionError(problem)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def walk(root):
    skipped = Counter()
    return list(walk_images(str(root), skipped, refuse)), +skipped


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPG", "a.JpEg", "a.b.png", "a.WEBP", "a.tif", "a.TIFF", "a.gif", ".a.bmp"]
)
def test_image_suffixes_in_upper_and_lower_case(name):
    assert has_image_suffix(name)


@pytest.mark.parametrize("name", ["a.txt", "jpg", "a", "a.jpg.txt", "a.jpg~", "Thumbs.db", ".jpg"])
def test_other_suffixes(name):
    assert not has_image_suffix(name)


def test_images_are_sorted_with_files_before_subfolders(tmp_path):
    names = ["b.png", "a.jpg", "a/z.jpg", "a/b/c.jpg", "Z.jpg", "10.jpg", "9.jpg", "c/a.jpg"]
    touch(*(tmp_path / name for name in names))
    found, skipped = walk(tmp_path)
    expected = ["10.jpg", "9.jpg", "Z.jpg", "a.jpg", "b.png", "a/z.jpg", "a/b/c.jpg", "c/a.jpg"]
    assert found == [str(tmp_path / name) for name in expected]
    assert not skipped


def test_skipped_files_are_counted_by_reason(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "._a.jpg", tmp_path / ".DS_Store", tmp_path / "notes.txt")
    touch(tmp_path / ".ipynb_checkpoints" / "b.jpg", tmp_path / "in" / ".hidden.png", tmp_path / "in" / "readme")
    (tmp_path / "linked.jpg").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe.jpg")
    found, skipped = walk(tmp_path)
    assert found == [str(tmp_path / "a.jpg")]
    assert skipped == {
        "hidden files": 3,
        "hidden folders": 1,
        "not images by their suffix": 2,
        "no ordinary files": 2,
    }


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    touch(tmp_path / "real" / "a.jpg")
    inner = tmp_path / "walked"
    inner.mkdir()
    (inner / "link.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (inner / "loop").symlink_to(inner)
    found, skipped = walk(inner)
    assert found == [str(inner / "link.jpg")]
    assert skipped == {"linked folders": 1}


def test_broken_and_circular_links_are_images_that_cannot_be_read(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    found, skipped = walk(tmp_path)
    assert found == [str(tmp_path / "gone.jpg"), str(tmp_path / "round.jpg")]
    assert not skipped
    assert [read_image(path, DecodeOptions()).error for path in found] == [
        "cannot be read: No such file or directory",
        "cannot be read: Too many levels of symbolic links",
    ]


def test_a_root_may_be_a_link(tmp_path):
    touch(tmp_path / "real" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert walk(tmp_path / "link")[0] == [str(tmp_path / "link" / "a.jpg")]


def test_a_folder_that_cannot_be_listed_is_reported_and_the_rest_is_walked(public_path, unprivileged):
    touch(public_path / "a" / "a.jpg", public_path / "b" / "b.jpg")
    (public_path / "a").chmod(0)
    problems = []
    with unprivileged():
        found = list(walk_images(str(public_path), Counter(), problems.append))
    assert found == [str(public_path / "b" / "b.jpg")]
    assert [problem.filename for problem in problems] == [str(public_path / "a")]


def test_images_in_an_inaccessible_folder_are_listed_but_cannot_be_read(public_path, unprivileged):
    touch(public_path / "shut" / "a.jpg", public_path / "shut" / "notes.txt")
    (public_path / "shut").chmod(0o744)
    with unprivileged():
        found, skipped = walk(public_path)
        assert (
            read_image(str(public_path / "shut" / "a.jpg"), DecodeOptions()).error
            == "cannot be read: Permission denied"
        )
    assert found == [str(public_path / "shut" / "a.jpg")]
    assert skipped == {"not images by their suffix": 1}


def test_hidden_names_start_with_a_dot():
    assert is_hidden("._a.jpg")
    assert not is_hidden("a.jpg")
