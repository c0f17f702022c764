"""The suggested --group-by reproduces groups of near duplicates, and nothing is suggested without a pattern."""

import re
from pathlib import Path

import pytest

from tlcli.datasets.dataset import Dataset, Sample
from tlcli.datasets.group_pattern import suggest_group_by


def suggestion(names, *, group=None):
    """Suggest a pattern for names such as `a/x_1.jpg=1`: those with the same number are near duplicates."""
    paths, numbers = zip(*(name.split("=") for name in names), strict=True)
    samples = tuple(Sample(path=f"data/{path}", label=0, split=None, group=group) for path in paths)
    dataset = Dataset(root=Path("data"), classes=("a",), samples=samples, skipped={})
    groups = [[index for index, one in enumerate(numbers) if one == number] for number in sorted({*numbers} - {""})]
    return suggest_group_by(dataset, groups)


def burst(form, groups=4, size=3):
    return [f"{form.format(group, member)}={group}" for group in range(groups) for member in range(size)]


@pytest.mark.parametrize(
    "names",
    [
        burst("cat/tile{0}_exp{1}.png"),
        burst("cat/IMG_20240{0}01_{1}.JPG"),
        [*burst("cat/burst-{0}-00{1}.jpg"), "cat/alone.jpg=", "dog/x_1.jpg="],
        burst("cat/tile{0}_exp_{1}.png"),
        burst("cat/b{0}/{1}.jpg"),
        [f"cat/{number}{letter}.jpg={number}" for number in range(4) for letter in "abc"],
        [f"cat/{name}{number}.jpg={name}" for name in ("walk", "run", "sit") for number in range(3)],
        [f"cat/car{number}{copy}.jpg={number}" for number in range(4) for copy in ("", " (2)")],
        [f"cat/car_{number}{copy}.jpg={number}" for number in range(4) for copy in ("", "_small", "_edited")],
        [
            f"{name}/t{number}_{member}.jpg={name}{number}"
            for name in "ab"
            for number in range(3)
            for member in range(2)
        ],
        [f"train/t{n}_0.jpg={n}" for n in range(4)] + [f"test/t{n}_1.jpg={n}" for n in range(4)],
    ],
)
def test_names_with_a_pattern_give_a_suggestion(names):
    pattern = suggestion(names)
    found = {}
    for name in names:
        path, number = name.split("=")
        if number:
            found.setdefault(re.search(pattern, path)[1], set()).add(number)
    assert all(len(numbers) == 1 for numbers in found.values())
    assert len(found) == len({name.split("=")[1] for name in names} - {""})


@pytest.mark.parametrize(
    "names",
    [
        burst("cat/tile{0}_exp{1}.png", groups=2),  # could be chance
        [f"cat/IMG_{number:04d}.jpg={number // 3}" for number in range(12)],  # a counter that ignores the groups
        burst("cat/tile{0}_exp{1}.png") + [f"cat/tile{n}_other{m}.png=" for n in range(20) for m in range(2)],
        [f"cat/{name}.jpg={number % 4}" for number, name in enumerate("qwertzuiopas")],
    ],
)
def test_names_without_a_pattern_give_none(names):
    assert suggestion(names) is None


def test_images_with_groups_need_none():
    assert suggestion(burst("cat/tile{0}_exp{1}.png"), group="g") is None
