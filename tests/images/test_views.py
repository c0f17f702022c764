"""Views: augmented images from decoder processes equal those made in this process."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcli.images.augment import make_view
from tlcli.images.decode import decode
from tlcli.images.loader import ImageLoader
from tlcli.images.preprocess import fit_image
from tlcli.images.worker import DecodeOptions, read_image
from tlcli.settings.augmentation import PRESETS


@pytest.mark.slow
def test_only_known_views_have_no_pixels(numbered, small):
    known = hashlib.sha256(Path(numbered[1]).read_bytes()).digest()
    options = DecodeOptions(preprocessing=small, augmentation=PRESETS["light"], known=frozenset([(known, 2)]))
    requests = [(numbered[1], 0), (numbered[1], 2), (numbered[1], 1), (numbered[2], 2)]
    with ImageLoader(options, workers=1) as loader:
        assert [image.pixels is None for image in loader.load_views(requests)] == [False, True, False, False]


@pytest.mark.slow
def test_views_do_not_depend_on_the_number_of_processes(draw, tmp_path, small):
    """They also equal views made in this process: augmentation of the upright image, followed by preprocessing."""
    paths = [str(draw(tmp_path / f"{number}.jpg", number, size=(90, 70))) for number in range(6)]
    requests = [(path, number) for number in (0, 1, 2) for path in paths]
    options = DecodeOptions(preprocessing=small, augmentation=PRESETS["strong"], seed=5)
    with ImageLoader(options, workers=1) as loader:
        alone = [image.pixels for image in loader.load_views(requests)]
        plain = [image.pixels for image in loader.load(paths)]
    with ImageLoader(options, workers=3, ahead=500) as loader:
        together = [image.pixels for image in loader.load_views(reversed(requests))]
    assert alone == together[::-1]
    assert len(set(alone)) == len(requests), "different views differ"
    assert alone[: len(paths)] == plain
    for (path, number), found in zip(requests, alone, strict=True):
        data = Path(path).read_bytes()
        digest = hashlib.sha256(data).digest()
        made = make_view(decode(data, 3), PRESETS["strong"], seed=5, view=number, digest=digest)
        assert found == fit_image(made, small).tobytes()


def test_views_for_a_gray_network_are_augmented_in_color(draw, tmp_path, small):
    path = draw(tmp_path / "one.png", size=(90, 70))
    options = DecodeOptions(preprocessing=replace(small, channels=1), augmentation=PRESETS["strong"])
    made = make_view(
        decode(path.read_bytes(), 3),
        PRESETS["strong"],
        seed=0,
        view=1,
        digest=hashlib.sha256(path.read_bytes()).digest(),
    )
    found = read_image(str(path), options, 1).pixels
    assert found == fit_image(made.convert("L"), small).tobytes()
    assert read_image(str(path), options).pixels == fit_image(decode(path.read_bytes(), 1), small).tobytes()


def test_png_views_contain_every_pixel_and_no_metadata(draw, tmp_path):
    path = draw(tmp_path / "one.jpg", size=(90, 70), comment="a comment", icc_profile=b"no profile", dpi=(300, 300))
    data = path.read_bytes()
    image = read_image(str(path), DecodeOptions(png=True, augmentation=PRESETS["strong"]), 1)
    made = make_view(decode(data, 3), PRESETS["strong"], seed=0, view=1, digest=image.digest)
    with Image.open(io.BytesIO(image.pixels)) as written:
        assert written.info == {}
        assert (np.asarray(written) == np.asarray(made)).all()


def test_png_option_only_checks_unchanged_images(draw, tmp_path):
    options = DecodeOptions(png=True, augmentation=PRESETS["strong"])
    plain = read_image(str(draw(tmp_path / "one.jpg")), options)
    assert (plain.pixels, plain.error) == (None, None)
    (tmp_path / "text.jpg").write_text("no image")
    assert read_image(str(tmp_path / "text.jpg"), options).error
    assert read_image(str(tmp_path / "text.jpg"), options, 1).error
