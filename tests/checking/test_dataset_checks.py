"""check reports masks, similar class names, images at two levels, and ignored color profiles."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcli.checking.dataset_checks import mask_findings, mixed_level_findings, profile_findings, similar_name_findings
from tlcli.checking.image_checks import read_headers
from tlcli.datasets.dataset import Dataset, Sample, open_dataset
from tlcli.progress import Silent


def save(path: Path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)


def test_masks_are_found_with_their_images(tmp_path):
    for name in "ab":
        for number in range(4):
            save(tmp_path / name / f"{number}.png", noise(number))
            save(tmp_path / name / f"{number}_mask.png", 255 * (noise(number)[..., 0] > 99).astype(np.uint8))
    dataset = open_dataset(tmp_path)
    found = mask_findings(dataset)
    assert [(Path(one.path).name, Path(one.other_path).name) for one in found[:2]] == [
        ("0_mask.png", "0.png"),
        ("1_mask.png", "1.png"),
    ]
    assert len(found) == 8
    assert "*_mask.*" in found[0].detail


def test_images_named_like_masks_are_not_findings(tmp_path):
    for name in "ab":
        for number in range(4):
            save(tmp_path / name / f"{number}.png", noise(number))
            save(tmp_path / name / f"{number}_mask.png", noise(9 + number))
    assert not mask_findings(open_dataset(tmp_path))


@pytest.mark.parametrize(
    ("classes", "pairs"),
    [
        (("hot dog", "hot_dogs", "tea"), [("hot_dogs", "hot dog")]),
        (("cat", "cats", "car"), [("cats", "cat")]),
        (("1.5", "15", "a1", "a2", "!", "?"), []),
    ],
)
def test_similar_class_names(classes, pairs):
    samples = tuple(Sample(path=f"{name}/1.jpg", label=label) for label, name in enumerate(classes))
    dataset = Dataset(root=Path("data"), classes=classes, samples=samples, skipped={})
    assert [(one.label, one.other_label) for one in similar_name_findings(dataset)] == pairs


def test_images_beside_subfolders_are_at_two_levels(tmp_path):
    for path in ("cat/1.png", "cat/old/2.png", "cat/old/3.png", "dog/x/1.png", "dog/y/2.png", "eel/1.png"):
        save(tmp_path / path, noise(0))
    (found,) = mixed_level_findings(open_dataset(tmp_path))
    assert found.label == "cat"
    assert found.detail == "1 images in its folder, 2 in subfolders (old)"


def test_ignored_profiles_are_found_in_the_headers(tmp_path):
    save(tmp_path / "a/1.png", noise(0), icc_profile=b"no profile")
    save(tmp_path / "a/2.png", noise(0))
    with io.BytesIO() as file:
        Image.fromarray(noise(1)).save(file, "JPEG", icc_profile=b"x" * 200)
        (tmp_path / "b").mkdir()
        (tmp_path / "b/1.jpg").write_bytes(file.getvalue())
    dataset = open_dataset(tmp_path)
    headers = read_headers(dataset, range(3), 1, Silent())
    found = profile_findings(dataset, headers.notes)
    assert [Path(one.path).name for one in found] == ["1.png", "1.jpg"]
    assert "ICC profile ignored" in found[0].detail
