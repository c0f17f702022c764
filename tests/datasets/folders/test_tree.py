"""Walking folders: which images are found, in which order, through which links, and the counts of skipped files."""

import os
from collections import Counter

from tlcli.datasets.folders.tree import LocalTree, walk
from tlcli.datasets.path_filter import PathFilter
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.settings.filters import PathPatterns


def refuse(problem):
    raise AssertionError(problem)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def walk_images(root, skipped, on_error=refuse, **filters):
    for folder in walk(LocalTree(str(root)), PathFilter(PathPatterns(**filters)), skipped, on_error):
        yield from folder.images


def found_in(root, **filters):
    """Return the paths of the images below a folder, relative to it, and the counts of skipped files."""
    skipped = Counter()
    return [os.path.relpath(path, root) for path in walk_images(root, skipped, **filters)], +skipped


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_images_are_sorted_with_files_before_subfolders(tmp_path):
    names = ["b.png", "a.jpg", "a/z.jpg", "a/b/c.jpg", "Z.jpg", "10.jpg", "9.jpg", "c/a.jpg"]
    touch(*(tmp_path / name for name in names))
    found, skipped = found_in(tmp_path)
    expected = ["10.jpg", "9.jpg", "Z.jpg", "a.jpg", "b.png", "a/z.jpg", "a/b/c.jpg", "c/a.jpg"]
    assert found == expected
    assert not skipped


def test_skipped_files_are_counted_by_reason(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "._a.jpg", tmp_path / ".DS_Store", tmp_path / "notes.txt")
    touch(tmp_path / ".git" / "b.jpg", tmp_path / "in" / ".hidden.png", tmp_path / "in" / "readme")
    touch(*(tmp_path / "in" / "@eaDir" / f"{n}.jpg" / "thumb.jpg" for n in range(3)))
    touch(tmp_path / "in" / "__MACOSX" / "x" / "._a.jpg")
    link(tmp_path / "linked.jpg", "/dev/null")
    link(tmp_path / "gone", "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert found_in(tmp_path) == (
        ["a.jpg"],
        {
            "._*": 1,
            ".DS_Store": 1,
            "hidden files": 1,
            "hidden folders": 1,
            ".txt": 1,
            "without a suffix": 1,
            "in @eaDir": 3,
            "in __MACOSX": 1,
            "no ordinary files": 2,
            "broken links": 1,
        },
    )


def test_links_to_files_and_folders_are_followed(tmp_path):
    touch(tmp_path / "real" / "a.jpg", tmp_path / "real" / "in" / "b.jpg")
    link(tmp_path / "walked" / "link.jpg", tmp_path / "real" / "a.jpg")
    link(tmp_path / "walked" / "folder", "../real")
    assert found_in(tmp_path / "walked") == (["link.jpg", "folder/a.jpg", "folder/in/b.jpg"], {})


def test_links_that_lead_back_end(tmp_path):
    touch(tmp_path / "walked" / "a.jpg", tmp_path / "outside" / "b.jpg")
    link(tmp_path / "walked" / "loop", ".")
    link(tmp_path / "walked" / "in" / "up", "../..")
    link(tmp_path / "walked" / "out", "../outside")
    link(tmp_path / "outside" / "again", ".")
    link(tmp_path / "outside" / "back", "../walked")
    assert found_in(tmp_path / "walked") == (["a.jpg", "out/b.jpg"], {"linked twice": 4})


def test_a_folder_is_walked_by_its_own_path_or_else_by_the_first_link(tmp_path):
    touch(tmp_path / "walked" / "z" / "a.jpg", tmp_path / "outside" / "in" / "b.jpg")
    link(tmp_path / "walked" / "a", "z")
    link(tmp_path / "walked" / "b", "../outside/in")
    link(tmp_path / "walked" / "c", "../outside")
    assert found_in(tmp_path / "walked") == (["b/b.jpg", "z/a.jpg"], {"linked twice": 2})


def test_a_link_to_a_skipped_folder_is_followed(tmp_path):
    touch(tmp_path / ".store" / "1" / "a.jpg", tmp_path / "raw" / "2" / "b.jpg")
    link(tmp_path / "cat", ".store/1")
    link(tmp_path / "dog", "raw/2")
    assert found_in(tmp_path, exclude=("raw",)) == (["cat/a.jpg", "dog/b.jpg"], {"hidden folders": 1, "excluded": 1})


def test_broken_and_circular_links_are_images_that_cannot_be_read(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    found, skipped = found_in(tmp_path)
    assert (found, skipped) == (["gone.jpg", "round.jpg"], {})
    assert [read_image(str(tmp_path / path), DecodeOptions()).error for path in found] == [
        "cannot be read: No such file or directory",
        "cannot be read: Too many levels of symbolic links",
    ]


def test_a_root_may_be_a_link(tmp_path):
    touch(tmp_path / "real" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(walk_images(tmp_path / "link", Counter())) == [str(tmp_path / "link" / "a.jpg")]


def test_a_folder_that_cannot_be_listed_is_reported_and_the_rest_is_walked(public_path, unprivileged):
    touch(public_path / "a" / "a.jpg", public_path / "b" / "b.jpg")
    (public_path / "a").chmod(0)
    problems = []
    with unprivileged():
        found = list(walk_images(public_path, Counter(), problems.append))
    assert found == [str(public_path / "b" / "b.jpg")]
    assert [problem.filename for problem in problems] == [str(public_path / "a")]


def test_images_in_an_inaccessible_folder_are_listed_but_cannot_be_read(public_path, unprivileged):
    touch(public_path / "shut" / "a.jpg", public_path / "shut" / "notes.txt")
    (public_path / "shut").chmod(0o744)
    with unprivileged():
        found, skipped = found_in(public_path)
        assert (
            read_image(str(public_path / "shut" / "a.jpg"), DecodeOptions()).error
            == "cannot be read: Permission denied"
        )
    assert (found, skipped) == (["shut/a.jpg"], {".txt": 1})
