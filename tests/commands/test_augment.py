"""`augment`: datasets keep classes and splits, copies equal online views, and splits never leak."""

import csv
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcli.commands.augment import augment
from tlcli.datasets.dataset import open_dataset
from tlcli.errors import ArtifactError, DataError, MachineError, UsageError
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.progress import Silent
from tlcli.settings import AugmentSettings, ComputeSettings, PathPatterns, TableColumns
from tlcli.settings.augmentation import PRESETS, Augmentation
from tlcli.storage.locks import lock_output

ONE_WORKER = ComputeSettings(workers=1)


@pytest.fixture(autouse=True)
def cache(shared_folder, monkeypatch):
    """Similar images are found by features, which all tests share."""
    monkeypatch.setenv("TLCLI_CACHE", str(shared_folder("augment-cache", lambda folder: None)))


def augmented(data, out, report=None, **changes):
    return augment(AugmentSettings(data=data, out=out, **{"compute": ONE_WORKER} | changes), report)


def tree(root):
    """Return the bytes of every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def manifest(out):
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sha(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def split(draw, tmp_path):
    """Two classes with 4 training images each, one of them in a subfolder, and 2 validation and 2 test images."""
    seed = 0
    for folder, count in (("train", 4), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                seed += 1
                below = "below" if (folder, number) == ("train", 3) else ""
                draw(tmp_path / "split" / folder / name / below / f"{number}.jpg", seed, size=(60, 40))
    # The same name as an image in another folder of the class.
    draw(tmp_path / "split" / "train" / "cat" / "below" / "1.jpg", 99, size=(60, 40))
    return tmp_path / "split"


@pytest.fixture
def table(draw, tmp_path):
    """Write a table of drawn images with labels and groups."""

    def write(labels, groups=None, names=None):
        lines = ["path,label,group"]
        for number, label in enumerate(labels):
            path = names[number] if names else f"images/{number}.png"
            draw(tmp_path / path, number, size=(30, 20), format="PNG")
            lines.append(f'"{path}","{label}",{groups[number] if groups else ""}')
        (tmp_path / "table.csv").write_text("\n".join(lines))
        return tmp_path / "table.csv"

    return write


def test_only_training_images_get_copies_and_originals_are_byte_identical(split, tmp_path, report):
    result = augmented(split, tmp_path / "out", report, copies=2)
    assert result["images"] == 17
    assert result["splits"] == {"train": 27, "validation": 4, "test": 4}
    assert result["written"] == 35
    assert (result["failed"], result["failures"]) == (0, [])
    made = open_dataset(tmp_path / "out")
    assert made.classes == ("cat", "dog")
    assert Counter(sample.split for sample in made.samples) == result["splits"]
    originals = {path: sha(path) for path in split.rglob("*.jpg")}
    for path, digest in originals.items():
        place = str(path.relative_to(split)).replace("val/", "validation/", 1)
        assert sha(tmp_path / "out" / place) == digest
    rows = manifest(tmp_path / "out")
    assert {row["path"] for row in rows} == tree(tmp_path / "out").keys() - {"manifest.csv", "augment.json"}
    for row in rows:
        assert originals[Path(row["source"])] == row["digest"]
        assert row["path"].split("/")[:2] == [row["split"], row["label"]]
        assert row["label"] in Path(row["source"]).parts
        assert row["view"] == "0" or row["split"] == "train"
        assert (row["parameters"] == "") == (row["view"] == "0")
    views = [json.loads(row["parameters"]) for row in rows if row["view"] != "0"]
    assert len({tuple(parameters["crop"]) for parameters in views}) == len(views) == 18


@pytest.mark.slow
def test_copies_equal_online_views(split, tmp_path, small):
    augmentation = PRESETS["strong"]
    augmented(split, tmp_path / "out", copies=2, augmentation=augmentation, seed=3)
    rows = [row for row in manifest(tmp_path / "out") if row["split"] == "train"]
    for row in rows:
        offline = read_image(str(tmp_path / "out" / row["path"]), DecodeOptions(preprocessing=small))
        options = DecodeOptions(preprocessing=small, augmentation=augmentation, seed=3)
        online = read_image(row["source"], options, int(row["view"]))
        assert offline.pixels == online.pixels
        assert offline.pixels is not None


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


@pytest.mark.slow
def test_a_training_image_that_is_also_in_validation_gets_no_copies(split, tmp_path, report):
    twin = split / "train" / "dog" / "2.jpg"
    shutil.copy(split / "val" / "dog" / "0.jpg", twin)
    augmented(split, tmp_path / "out", report, copies=3)
    views = [row["view"] for row in manifest(tmp_path / "out") if row["digest"] == sha(twin)]
    assert views == ["0", "0"]
    assert any("1 training images get no copies" in text for text in report.warnings)


def test_too_few_images_to_hold_any_out(draw, tmp_path):
    for name in ("cat", "dog"):
        draw(tmp_path / "few" / name / "1.png")
    with pytest.raises(DataError, match="folder named val next to train"):
        augmented(tmp_path / "few", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_resumed_dataset_is_identical(split, tmp_path):
    out = tmp_path / "out"
    augmented(split, out, copies=2, compute=ComputeSettings(workers=2))
    whole = tree(out)
    (out / "manifest.csv").unlink()
    for path in [*sorted(out.rglob("*v1.png"))[::2], out / "test" / "cat" / "0.jpg"]:
        path.unlink()
    (out / "train" / "cat" / ".1.jpg.x.tmp").write_bytes(b"half of it")
    kept = out / "train" / "cat" / "0.jpg"
    os.utime(kept, (1e9, 1e9))
    result = augmented(split, out, copies=2, resume=True)
    assert "was_finished" not in result
    assert tree(out) == whole
    assert kept.stat().st_mtime == 1e9, "existing images are not rewritten"
    again = augmented(split, out, copies=2, resume=True)
    assert again["was_finished"]
    assert again["written"] == 35
    assert augmented(split, tmp_path / "fresh", copies=2, resume=True)["written"] == 35
    assert tree(tmp_path / "fresh") == whole


@pytest.mark.slow
def test_two_writers_at_once_are_rejected(split, tmp_path):
    out = tmp_path / "out"
    augmented(split, out)
    (out / "manifest.csv").unlink()
    (out / "train" / "cat" / ".1.jpg.x.tmp").write_bytes(b"half of it")
    before = tree(out)
    with lock_output(out, Silent()):
        for resume in (False, True):
            with pytest.raises(MachineError, match=f"{out} is locked: process {os.getpid()} is writing"):
                augmented(split, out, resume=resume)
        assert tree(out) == before
    assert augmented(split, out, resume=True)["written"] == 26
    with lock_output(out, Silent()):
        assert augmented(split, out, resume=True)["was_finished"]


@pytest.mark.slow
def test_a_finished_dataset_of_other_images_is_rejected(split, tmp_path, draw):
    out = tmp_path / "out"
    augmented(split, out)
    before = tree(out)
    draw(split / "train" / "cat" / "another.jpg", 99)
    with pytest.raises(ArtifactError, match="started with different images"):
        augmented(split, out, resume=True)
    assert tree(out) == before


@pytest.mark.slow
def test_resuming_with_other_settings_or_images_is_rejected(split, tmp_path, draw):
    out = tmp_path / "out"
    augmented(split, out)
    with pytest.raises(UsageError, match="is not empty"):
        augmented(split, out)
    for changes, name in [
        ({"copies": 2}, "copies was 1 and is 2"),
        ({"seed": 4}, "seed was 0 and is 4"),
        ({"augmentation": Augmentation(noise=3)}, "augmentation was"),
    ]:
        with pytest.raises(ArtifactError, match=name):
            augmented(split, out, resume=True, **changes)
    (out / "manifest.csv").unlink()
    before = tree(out)
    draw(split / "train" / "cat" / "new.jpg", 77)
    with pytest.raises(ArtifactError, match="has changed since"):
        augmented(split, out, resume=True)
    assert tree(out) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ArtifactError, match=r"augment\.json is missing"):
        augmented(split, tmp_path / "other", resume=True)


@pytest.mark.slow
def test_resuming_with_other_columns_or_filters_is_rejected(draw, tmp_path):
    lines = ["path,label,kind"]
    for number in range(24):
        name = draw(tmp_path / f"{number}.png", number, size=(30, 20), format="PNG").name
        lines.append(f"{name},{'cat' if number % 2 else 'dog'},{'old' if number % 2 else 'new'}")
    data = tmp_path / "table.csv"
    data.write_text("\n".join(lines))
    kind, unfiltered = TableColumns(label_column="kind"), PathPatterns()
    exclude = PathPatterns(exclude=("23.png",))
    augmented(data, tmp_path / "plain", group_by="none")
    augmented(data, tmp_path / "chosen", columns=kind, filters=exclude, group_by="none")
    for out, changes, expected in [
        ("plain", {"columns": kind}, "different settings: label_column was None and is 'kind'"),
        ("plain", {"filters": exclude}, "exclude was None and is"),
        ("chosen", {"filters": exclude}, "label_column was 'kind' and is None"),
        ("chosen", {"columns": kind, "filters": unfiltered}, "exclude was .* and is None"),
    ]:
        (tmp_path / out / "manifest.csv").unlink(missing_ok=True)
        before = tree(tmp_path / out)
        with pytest.raises(ArtifactError, match=expected):
            augmented(data, tmp_path / out, resume=True, group_by="none", **changes)
        assert tree(tmp_path / out) == before
    again = augmented(data, tmp_path / "chosen", columns=kind, filters=exclude, resume=True, group_by="none")
    assert again["written"] > 23


@pytest.mark.parametrize("label", ["../../evil", "a/b", "..", ".", ".hidden", "/absolute", "x" * 256])
def test_classes_that_cannot_be_folders_are_rejected(table, tmp_path, label):
    data = table(["cat"] * 12 + [label] * 12)
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(DataError, match="cannot be the name of a class folder"):
        augmented(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.slow
def test_unusual_classes_and_names_from_a_table_are_kept(table, tmp_path):
    names = [f"{folder}/same.png" for folder in "abcdefghijkl"]
    names += ["x" * 251 + ".png", "ü" * 125 + ".png", ".hidden.png", "no suffix", "~odd\t'name.PNG", "-v1.png"]
    names += [f"{number}.png" for number in range(6)]
    labels = ["50 % off\tnow"] * 12 + ["日本 & co"] * 12
    data = table(labels, names=names)
    with data.open("a") as file:
        file.write(f'\n"{names[0]}","{labels[0]}",')  # a repeated row
    augmented(data, tmp_path / "out", copies=2, group_by="none")
    made = open_dataset(tmp_path / "out")
    assert made.classes == tuple(sorted(set(labels)))
    sources = Counter(row["source"] for row in manifest(tmp_path / "out") if row["split"] == "train")
    assert set(sources.values()) == {3}
    assert len(made.samples) == len(manifest(tmp_path / "out"))
    assert {row["digest"] for row in manifest(tmp_path / "out")} == {sha(tmp_path / name) for name in names}
    assert len(open_dataset(tmp_path / "out" / "manifest.csv").samples) == len(made.samples)


@pytest.mark.slow
def test_names_that_are_not_utf8(split, tmp_path):
    odd = os.fsdecode(os.fsencode(split / "train" / "cat") + b"/\xff" + b"y" * 250 + b".jpg")
    shutil.copy(split / "train" / "cat" / "0.jpg", odd)
    augmented(split, tmp_path / "out")
    rows = [row for row in manifest(tmp_path / "out") if row["source"].startswith("file://")]
    assert [row["view"] for row in rows] == ["0", "1"]
    assert len(open_dataset(tmp_path / "out" / "manifest.csv").samples) == 28


@pytest.mark.slow
def test_unreadable_images_are_listed_and_the_rest_is_written(split, tmp_path, report):
    (split / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    (split / "val" / "dog" / "empty.jpg").write_bytes(b"")
    result = augmented(split, tmp_path / "out", report)
    assert result["failed"] == 2
    assert {Path(failure["path"]).name for failure in result["failures"]} == {"broken.jpg", "empty.jpg"}
    assert all(failure["error"] for failure in result["failures"])
    assert result["splits"] == {"train": 18, "validation": 4, "test": 4}
    assert not list((tmp_path / "out").rglob("broken*"))


def test_data_and_out_must_not_contain_each_other(split, tmp_path, draw):
    before = tree(tmp_path)
    for out in (split, split / "train" / "cat", split / "new", tmp_path, split / ".." / "split" / "new"):
        with pytest.raises(UsageError):
            augmented(split, out)
    (tmp_path / "link").symlink_to(split)
    with pytest.raises(UsageError, match="contains the other"):
        augmented(split, tmp_path / "link" / "new")
    with pytest.raises(UsageError, match="is a file"):
        augmented(split, draw(tmp_path / "file.png"))
    assert {name: content for name, content in tree(tmp_path).items() if name in before} == before


@pytest.mark.slow
def test_a_full_disk_leaves_no_partial_files(split, tmp_path, full_disk):
    with full_disk(3000), pytest.raises((MachineError, OSError)):
        augmented(split, tmp_path / "out", augmentation=Augmentation(noise=60))
    assert not list((tmp_path / "out").rglob("*.tmp"))
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).load()
    assert augmented(split, tmp_path / "out", augmentation=Augmentation(noise=60), resume=True)["written"] == 26


@pytest.mark.slow
def test_only_a_preview(photos, tmp_path):
    sheets = []
    for seed in (0, 1):
        preview = tmp_path / f"{len(sheets)}.png"
        result = augmented(photos, None, preview=preview, seed=seed)
        assert (result["out"], result["preview"], result["written"]) == (None, str(preview), 0)
        sheets.append(np.asarray(Image.open(preview)))
    assert sheets[0].shape != sheets[1].shape or (sheets[0] != sheets[1]).any()
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(UsageError, match="--overwrite"):
        augmented(photos, None, preview=preview)
    augmented(photos, None, preview=preview, overwrite=True)
    assert (np.asarray(Image.open(preview)) == sheets[0]).all()


@pytest.mark.slow
def test_the_preview_skips_unreadable_images(split, tmp_path):
    for path in (split / "train").rglob("*.jpg"):
        if path.name != "0.jpg":
            path.write_bytes(b"no image")
    augmented(split, None, preview=tmp_path / "two.png")
    for path in (split / "train").rglob("0.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 9 images"):
        augmented(split, None, preview=tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no output"),
        ({"out": Path("x"), "copies": 0}, "--copies is 0"),
        ({"out": Path("x"), "augmentation": Augmentation()}, "leave images unchanged"),
        ({"out": Path("x"), "augmentation": Augmentation(color_shift=(0, 0, 0))}, "leave images unchanged"),
        ({"out": Path("x"), "overwrite": True}, "--overwrite has no effect"),
        ({"preview": Path("x.png"), "resume": True}, "--resume has no effect"),
        ({"preview": Path("x.jpg")}, "ending in .png"),
    ],
)
def test_invalid_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        AugmentSettings(data=Path("data"), **changes)
