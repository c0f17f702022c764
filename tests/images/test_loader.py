"""The image loader: the order of results, what it returns of each file, and what it reads."""

import hashlib
import itertools
import os
import random
from pathlib import Path

import pytest
from decoder_processes import number_of

from tlcli.images.loader import ImageLoader
from tlcli.images.worker import DecodedImage, DecodeOptions, read_image
from tlcli.storage.stored import Stamp


@pytest.mark.parametrize("workers", [1, 3])
def test_slow_fast_and_broken_images_keep_their_order(tmp_path, numbered, small, workers):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    broken = [str(tmp_path / name) for name in ("text.jpg", "empty.jpg", "missing.jpg")] + [str(tmp_path)]
    paths = numbered + broken * 3
    random.Random(workers).shuffle(paths)
    with ImageLoader(DecodeOptions(preprocessing=small), workers=workers) as loader:
        images = list(loader.load(paths))
    assert len(images) == len(paths)
    for path, image in zip(paths, images, strict=True):
        if path in broken:
            assert image.pixels is None
            assert image.error
        else:
            assert image.error is None
            assert number_of(image) == int(Path(path).stem)
            assert image.digest == hashlib.sha256(Path(path).read_bytes()).digest()
            assert image.stamp == Stamp.of(Path(path).stat())


def test_the_loader_returns_what_read_image_returns(numbered, small):
    options = DecodeOptions(preprocessing=small)
    with ImageLoader(options, workers=2) as loader:
        found = [image._replace(read=0) for image in loader.load(numbered[:5])]
    assert found == [read_image(path, options)._replace(read=0) for path in numbered[:5]]


def test_the_content_of_a_file_gives_what_its_path_gives(numbered, small):
    contents = [Path(path).read_bytes() for path in [*numbered[:9], __file__]]
    with ImageLoader(DecodeOptions(preprocessing=small), workers=2) as loader:
        found = [future.result() for future in [loader.decode(content) for content in contents]]
        expected = [image._replace(stamp=Stamp(), read=0) for image in loader.load([*numbered[:9], __file__])]
    assert found == expected


def test_known_images_have_no_pixels(numbered, small):
    known = hashlib.sha256(Path(numbered[1]).read_bytes()).digest()
    with ImageLoader(DecodeOptions(preprocessing=small, known=frozenset([(known, 0)])), workers=1) as loader:
        images = list(loader.load(numbered[:3]))
    assert [image.pixels is None for image in images] == [False, True, False]
    assert images[1].digest == known
    assert images[1].error is None


def test_without_preprocessing_images_are_only_hashed(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with ImageLoader(DecodeOptions(), workers=1) as loader:
        [image] = loader.load([str(tmp_path / "text.jpg")])
    assert image.digest == hashlib.sha256(b"no image").digest()
    assert (image.pixels, image.error) == (None, None)


def test_a_file_name_that_is_not_utf8(tmp_path, numbered, small):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff \n'\".png")
    Path(odd).write_bytes(Path(numbered[9]).read_bytes())
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        assert [number_of(image) for image in loader.load([odd])] == [9]


def test_an_impossible_file_name(numbered, small):
    with ImageLoader(DecodeOptions(preprocessing=small), workers=1) as loader:
        impossible, after = loader.load(["a\0b.png", numbered[4]])
    assert impossible.error
    assert number_of(after) == 4


def test_a_file_without_permission(public_path, unprivileged, draw, small):
    path = draw(public_path / "closed.png")
    path.chmod(0)
    with unprivileged():
        assert read_image(str(path), DecodeOptions(preprocessing=small)) == DecodedImage(
            error="cannot be read: Permission denied"
        )


def test_paths_are_consumed_only_as_far_as_needed(numbered, small):
    asked = itertools.count()
    endless = (numbered[next(asked) % 3] for _ in itertools.repeat(None))
    with ImageLoader(DecodeOptions(preprocessing=small), workers=2) as loader:
        assert [number_of(image) for image in itertools.islice(loader.load(endless), 7)] == [0, 1, 2, 0, 1, 2, 0]
    assert next(asked) < 200


def test_measuring_sizes_reads_only_headers(tmp_path, draw):
    """Truncated images have a size; files without a header have a reason."""
    cut = draw(tmp_path / "cut.jpg", size=(300, 200))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    good = draw(tmp_path / "good.png", size=(31, 47))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no header")
    with ImageLoader(DecodeOptions(measure="size"), workers=1) as loader:
        found = list(loader.load([str(cut), str(good), str(bad), str(tmp_path / "none.png")]))
    assert [image.dimensions for image in found] == [(300, 200), (31, 47), None, None]
    assert found[2].error == "not an image of a known format"
    assert "cannot be read" in found[3].error
    assert all(image.pixels is None for image in found)
