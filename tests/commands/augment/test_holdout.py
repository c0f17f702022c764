"""Images are held out where a dataset has no validation images, and groups stay together."""

import re
from pathlib import Path

import numpy as np
import pytest
from augmented_datasets import augmented, manifest, tree
from PIL import Image

from tlcli.datasets.dataset import open_dataset
from tlcli.errors import ArtifactError, DataError, UsageError
from tlcli.settings import AugmentSettings


@pytest.mark.slow
def test_images_are_held_out_if_there_are_no_validation_images(photos, tmp_path, report):
    result = augmented(photos, tmp_path / "out", report)
    splits = result["splits"]
    assert splits["train"] % 2 == 0
    assert splits["train"] // 2 + splits["validation"] == 45
    assert 3 <= splits["validation"] <= 20
    assert any(f"{splits['validation']} of 45 images are held out" in note for note in report.notes)
    originals = {split: set() for split in ("train", "validation")}
    for row in manifest(tmp_path / "out"):
        originals[row["split"]].add(row["digest"])
    assert not originals["train"] & originals["validation"]
    again = augmented(photos, tmp_path / "again", seed=1)
    assert again["splits"] != splits or tree(tmp_path / "again") != tree(tmp_path / "out")


@pytest.mark.slow
def test_copies_groups_and_small_classes_stay_together(table, tmp_path):
    data = table(["cat"] * 30 + ["dog"] * 30 + ["owl"] * 3, groups=[number // 6 for number in range(63)])
    augmented(data, tmp_path / "out", group_by="none")
    sides = {}
    for row in manifest(tmp_path / "out"):
        group = int(Path(row["source"]).stem) // 6
        sides.setdefault(group, set()).add(row["split"])
        assert row["label"] != "owl" or row["split"] == "train"
    assert all(len(side) == 1 for side in sides.values())
    assert {"train"} in sides.values()
    assert {"validation"} in sides.values()


@pytest.fixture(scope="module")
def bursts(photos, tmp_path_factory):
    """Two classes of twelve objects each, with four frames of each object."""
    root = tmp_path_factory.mktemp("bursts") / "bursts"
    generator = np.random.default_rng(0)
    for label in ("disc", "stripes"):
        (root / label).mkdir(parents=True)
        for name, path in zip("abcdefghijkl", sorted((photos / label).iterdir()), strict=False):
            scene = np.asarray(Image.open(path).resize((104, 84)))
            for frame in range(4):
                top, left = generator.integers(0, 4, 2)
                pixels = scene[top : top + 80, left : left + 100] + generator.normal(0, 4, (80, 100, 3))
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                image.save(root / label / f"{name}-{frame}.jpg", quality=92)
    return root


def sides(out):
    """Return the splits that have frames of each object."""
    found = {}
    for row in manifest(out):
        path = Path(row["source"])
        found.setdefault((path.parent.name, path.stem[0]), set()).add(row["split"])
    return found


@pytest.mark.slow
def test_bursts_stay_together(bursts, tmp_path, report):
    augmented(bursts, tmp_path / "out", report)
    assert any(
        re.fullmatch(r"  \d\d groups of similar images \(largest \d+\) are kept together", n) for n in report.notes
    )
    together = sides(tmp_path / "out")
    assert {frozenset(splits) for splits in together.values()} == {frozenset({"train"}), frozenset({"validation"})}
    groups = {}
    for row in manifest(tmp_path / "out"):
        groups.setdefault((row["label"], Path(row["source"]).name[0]), set()).add(row["group"])
    assert {len(names) for names in groups.values()} == {1}
    made = open_dataset(tmp_path / "out" / "manifest.csv")
    assert {sample.group for sample in made.samples} == set().union(*groups.values())


@pytest.mark.slow
def test_bursts_are_divided_if_similar_images_form_no_groups(bursts, tmp_path, monkeypatch):
    monkeypatch.setenv("TLCLI_CACHE", str(tmp_path / "cache"))
    augmented(bursts, tmp_path / "out", group_by="none")
    assert {"train", "validation"} in sides(tmp_path / "out").values()
    assert not (tmp_path / "cache").exists(), "nothing is computed"
    for changes, message in [({}, "group_by was 'none' and is None"), ({"group_by": "disc"}, "and is 'disc'")]:
        with pytest.raises(ArtifactError, match=message):
            augmented(bursts, tmp_path / "out", resume=True, **changes)
    assert augmented(bursts, tmp_path / "out", resume=True, group_by="none")["was_finished"]


@pytest.mark.slow
def test_groups_by_name_join_similar_images(bursts, tmp_path):
    augmented(bursts, tmp_path / "out", group_by=r"/([a-c])-")
    joined = {}
    for row in manifest(tmp_path / "out"):
        joined.setdefault(Path(row["source"]).stem[0], set()).add((row["group"], row["split"]))
    for name in "abc":
        ((group, _),) = joined[name]
        assert group == name, "objects of both classes"
    assert not {group for group, _ in joined["d"]} & set("abc")


@pytest.mark.slow
def test_groups_need_images_to_hold_out(split, tmp_path, monkeypatch):
    monkeypatch.setenv("TLCLI_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"--group-by has no effect: .* has its own validation images"):
        augmented(split, tmp_path / "out", group_by="cat")
    with pytest.raises(UsageError, match="--group-by has no effect without --out"):
        AugmentSettings(data=split, preview=tmp_path / "look.png", group_by="none")
    augmented(split, tmp_path / "out")
    augmented(split.parent / "split" / "train", None, preview=tmp_path / "look.png")
    assert not (tmp_path / "cache").exists(), "nothing is computed"


def test_too_few_images_to_hold_any_out(draw, tmp_path):
    for name in ("cat", "dog"):
        draw(tmp_path / "few" / name / "1.png")
    with pytest.raises(DataError, match="folder named val next to train"):
        augmented(tmp_path / "few", tmp_path / "out")
    assert not (tmp_path / "out").exists()
