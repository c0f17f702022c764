"""Create any number of distinct images: copies of a few, with unique bytes appended after the end of the JPEG."""

from itertools import count
from pathlib import Path


def copy_images(data, folder, times=None, *, images=None):
    """Write copies of the JPEGs in `data` into class folders: `times` copies of each, or `images` in total."""
    sources = sorted(path for path in Path(data).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    wanted = times * len(sources) if images is None else images
    written = []
    for number in count():
        for path in sources:
            if len(written) == wanted:
                return written
            copy = Path(folder) / path.parent.name / f"{number}-{path.name}"
            copy.parent.mkdir(exist_ok=True, parents=True)
            copy.write_bytes(path.read_bytes() + f"copy {number}".encode())
            written.append(copy)
    return written
