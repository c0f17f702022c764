"""Fixtures: images with splits, labeled tables, and a feature cache."""

import pytest


@pytest.fixture(autouse=True)
def cache(shared_folder, monkeypatch):
    """Similar images are found by features, which all tests share."""
    monkeypatch.setenv("TLCLI_CACHE", str(shared_folder("augment-cache", lambda folder: None)))


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
