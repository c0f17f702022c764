"""Patterns of --include and --exclude are those of .gitignore."""

import pytest

from tlcli.datasets.path_filter import PathFilter
from tlcli.errors import UsageError
from tlcli.settings.filters import PathPatterns


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*_mask.*", "cat/1_mask.png", True),
        ("*_mask.*", "cat/1.png", False),
        ("Examples", "Examples/1.jpg", True),
        ("Examples", "a/Examples/b/1.jpg", True),
        ("Examples/", "a/Examples/1.jpg", True),
        ("examples", "Examples/1.jpg", False),
        ("cat/*.jpg", "cat/1.jpg", True),
        ("cat/*.jpg", "cat/in/1.jpg", False),
        ("cat/*.jpg", "a/cat/1.jpg", False),
        ("cat/**/*.jpg", "cat/in/1.jpg", True),
        ("**/raw/*", "a/b/raw/1.jpg", True),
        ("/1.jpg", "cat/1.jpg", False),
        ("./cat/1.jpg", "cat/1.jpg", True),
        ("!new", "!new/1.jpg", True),
        ("#1", "#1/1.jpg", True),
        ("img[0-4].jpg", "cat/img3.jpg", True),
        ("cat/1.jpg", "./cat/1.jpg", True),
        ("mask", "/home/me/mask/1.jpg", True),
    ],
)
def test_patterns(pattern, path, matches):
    assert PathFilter(PathPatterns(include=(pattern,))).keeps(path) == matches
    assert PathFilter(PathPatterns(exclude=(pattern,))).keeps(path) != matches


def test_a_path_must_be_included_and_not_excluded():
    paths = PathFilter(PathPatterns(include=("cat", "dog"), exclude=("*.gif",)))
    assert [paths.keeps(path) for path in ("cat/1.jpg", "dog/1.gif", "emu/1.jpg")] == [True, False, False]
    assert paths
    assert not PathFilter()


def test_every_pattern_that_matches_counts_as_used():
    paths = PathFilter(PathPatterns(include=("cat",), exclude=("a.jpg", "cat/a.jpg", "b.jpg")))
    assert not paths.keeps("cat/a.jpg")
    assert paths.unused() == ["--exclude 'b.jpg'"]


def test_a_folder_is_dropped_by_exclude_only():
    paths = PathFilter(PathPatterns(include=("*.jpg",), exclude=("raw/", "*/old")))
    assert [paths.drops_folder(path) for path in ("raw", "a/raw", "a/old", "a")] == [True, True, True, False]


@pytest.mark.parametrize("pattern", ["", "/", " ", "a[b"])
def test_invalid_patterns(pattern):
    with pytest.raises(UsageError, match="--exclude"):
        PathFilter(PathPatterns(exclude=(pattern,)))
