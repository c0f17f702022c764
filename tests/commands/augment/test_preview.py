"""The preview: a sheet of images instead of a dataset."""

import numpy as np
import pytest
from augmented_datasets import augmented
from PIL import Image

from tlcli.errors import DataError, UsageError


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
