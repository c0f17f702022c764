"""Masks among the images are found by name, and confirmed by their pixels."""

import pytest
from PIL import Image, ImageDraw

from tlcli.datasets.dataset import open_dataset
from tlcli.datasets.descriptions import describe_dataset
from tlcli.datasets.folders.mask_pairs import MaskPairs, find_mask_pairs, look_like_masks

NUMBERS = range(4)


@pytest.mark.parametrize(
    ("images", "masks", "exclude"),
    [
        ("cat/{}.png", "cat/{}_mask.png", "*_mask.*"),
        ("cat/benign ({}).png", "cat/benign ({})_mask_1.png", "*_mask*"),
        ("cat/{}.jpg", "cat/{}-GT.png", "*-GT.*"),
        ("cat/{}.jpg", "cat/{}_segmentation.png", "*_segmentation.*"),
        ("cat/{}.jpg", "cat/mask_{}.png", "mask_*"),
        ("cat/{}_image.png", "cat/{}_mask.png", "*_mask.*"),
        ("masks/data/cat/img/{}.png", "masks/data/cat/gt/{}.png", "gt/"),
        ("cat/{}.jpg", "cat/{}.png", "*.png"),
        ("images/{}.jpg", "masks/{}.png", "masks/"),
        ("cat/images/{}.png", "cat/masks/{}.png", "masks/"),
        ("images/{}.jpg", "labels/{}_label.png", "labels/"),
        ("images/{}.jpg", "annotations/trimaps/{}.png", "annotations/"),
    ],
)
def test_masks_are_found_by_name(images, masks, exclude):
    found, *_ = find_mask_pairs([form.format(number) for form in (images, masks) for number in NUMBERS])
    assert found.exclude == exclude
    assert found.pairs == tuple((masks.format(number), images.format(number)) for number in NUMBERS)


@pytest.mark.parametrize(
    "paths",
    [
        [f"cat/{number}.jpg" for number in NUMBERS],
        [f"cat/{number}_mask.jpg" for number in NUMBERS],
        [f"{folder}/{number}.jpg" for folder in ("with_mask", "without") for number in NUMBERS][:5],
        [f"{folder}/{number}.jpg" for folder in ("cat", "dog") for number in NUMBERS],
        ["cat/1.jpg", "cat/1_mask.jpg"],
        [f"cat/{number}{end}.jpg" for number in NUMBERS for end in ("", "_flipped")],
    ],
)
def test_other_names_are_not_masks(paths):
    assert find_mask_pairs(paths) == []


def test_either_of_two_suffixes_may_be_that_of_the_masks():
    paths = [f"cat/{number}{suffix}" for number in NUMBERS for suffix in (".bmp", ".jpg")]
    assert [pairs.exclude for pairs in find_mask_pairs(paths)] == ["*.jpg", "*.bmp"]
    assert [pairs.exclude for pairs in find_mask_pairs([*paths, "dog/1.jpg"])] == ["*.bmp"]  # it would drop the dog


def draw(path, kind):
    image = Image.effect_noise((90, 60), 120).convert("RGB")
    if kind != "photo":
        image.paste({"two levels": "black", "constant": "gray", "few colors": "navy"}[kind], (0, 0, 90, 60))
        draw = ImageDraw.Draw(image)
        if kind != "constant":
            draw.ellipse((20, 10, 60, 50), fill="white")
        if kind == "few colors":
            draw.rectangle((0, 0, 15, 60), fill="red")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "expected"), [("two levels", True), ("constant", True), ("few colors", True), ("photo", False)]
)
def test_masks_are_confirmed_by_their_pixels(tmp_path, kind, expected):
    paths = [draw(tmp_path / f"{number}{suffix}", kind) for number in NUMBERS for suffix in (".png", ".jpg")]
    for suffix in (".png",) if kind == "few colors" else (".png", ".jpg"):
        pairs = tuple((path, "") for path in paths if path.endswith(suffix))
        assert look_like_masks(MaskPairs(exclude="", pairs=pairs)) == expected


def test_a_warning_names_the_option(tmp_path, report):
    for name in ("cat", "dog"):
        for number in NUMBERS:
            draw(tmp_path / name / f"{number}.jpg", "photo")
            draw(tmp_path / name / f"{number}_mask.png", "two levels")
    describe_dataset(open_dataset(tmp_path), report)
    (warning,) = report.warnings
    assert warning.startswith("8 of 16 images look like masks of others, such as ")
    assert warning.endswith("Leave them out with --exclude '*_mask.*'.")
