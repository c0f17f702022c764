"""Draw the sample images: small street scenes with a car, with a pedestrian, or with neither.

    python sample_data/draw.py [FOLDER]

writes `pictures/car`, `pictures/pedestrian`, and `pictures/neither`, 30 JPEGs each, and the images in `to_predict`, to
FOLDER (default: the folder of this script). Each image has its own random generator, seeded with its class and its
number, so the same versions of Pillow and NumPy write the same bytes.

All classes share their streets (`scenery.py`), clutter (`things.py`), colors, weather, and positions. They differ only
in the shape of the main object: one of six types of cars, seen from any side (`cars.py`); one or two people
(`people.py`); or other things of about the same size.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from brush import SUPERSAMPLING, Pen
from cars import draw_car
from people import draw_person
from PIL import Image, ImageFilter
from scenery import View, backdrop, random_view
from things import LARGE, SLIM, SMALL

SEED = 7
CLASSES = ("car", "pedestrian", "neither")
PER_CLASS = 30
LOOSE = ("pedestrian", "car", "neither", "car", "neither", "pedestrian")


def place(view: View, rng: np.random.Generator, nearest: float, farthest: float) -> tuple[float, float]:
    """Return a row of the image to place something at, and its scale in pixels per meter."""
    row = view.horizon + (view.height - view.horizon) * rng.uniform(farthest, nearest)
    return row, view.scale_at(row)


def clutter(pen: Pen, view: View, rng: np.random.Generator) -> None:
    """Draw some small and slim things behind the main object."""
    rows = sorted(place(view, rng, 0.5, 0.2) for _ in range(int(rng.integers(1, 5))))
    for row, scale in rows:
        kinds = SLIM if rng.random() < 0.55 else SMALL
        thing = kinds[int(rng.integers(len(kinds)))]
        thing(pen.at(rng.uniform(0, view.width), row, scale, bool(rng.random() < 0.5)), rng)


def add_car(pen: Pen, view: View, rng: np.random.Generator) -> None:
    row, scale = place(view, rng, 0.85, 0.45)
    scale = float(np.clip(scale, view.width * 0.09, view.width * 0.175))
    middle = view.width * rng.uniform(0.34, 0.66)
    draw_car(pen.at(middle, row, scale, bool(rng.random() < 0.5)), rng, view.eye)


def add_people(pen: Pen, view: View, rng: np.random.Generator) -> None:
    row, scale = place(view, rng, 0.96, 0.6)
    scale = float(np.clip(scale, view.height * 0.3, view.height * 0.46))
    middle = view.width * rng.uniform(0.22, 0.78)
    flip = bool(rng.random() < 0.5)
    if rng.random() < 0.22:
        aside = scale * rng.uniform(0.6, 1.6) * (1 if middle < view.width / 2 else -1)
        draw_person(pen.at(middle + aside, row - rng.uniform(1, 6), scale * 0.96, bool(rng.random() < 0.5)), rng)
    draw_person(pen.at(middle, row, scale, flip), rng)


def add_things(pen: Pen, view: View, rng: np.random.Generator) -> None:
    count = int(rng.integers(1, 4))
    rows = sorted(place(view, rng, 0.95, 0.5) for _ in range(count))
    left = rng.uniform(0.12, 0.4)
    for i, (row, scale) in enumerate(rows):
        kinds = LARGE if rng.random() < 0.8 else SLIM
        thing = kinds[int(rng.integers(len(kinds)))]
        size = float(np.clip(scale * rng.uniform(1.0, 1.4), view.width * 0.12, view.width * 0.24))
        x = view.width * ((left + (i + 0.5) / (count + 0.4)) % 0.9 + 0.05)
        thing(pen.at(x, row, size, bool(rng.random() < 0.5)), rng)


def in_front(pen: Pen, view: View, rng: np.random.Generator) -> None:
    """Sometimes draw a post or a small thing that hides a part of the main object."""
    if rng.random() < 0.25:
        row, scale = place(view, rng, 1.1, 0.85)
        kinds = [*SLIM, *SMALL]
        thing = kinds[int(rng.integers(len(kinds)))]
        aside = rng.uniform(0.03, 0.3)
        x = view.width * (aside if rng.random() < 0.5 else 1 - aside)
        thing(pen.at(x, row, scale * 0.7, bool(rng.random() < 0.5)), rng)


def weather(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add haze, light, slight blur, and sensor noise."""
    pixels = np.asarray(image, np.float64)
    height, width = pixels.shape[:2]
    if rng.random() < 0.2:
        haze = rng.uniform(0.1, 0.35) * np.linspace(1, 0.35, height)[:, None, None]
        pixels = pixels * (1 - haze) + np.array([206.0, 210.0, 214.0]) * haze
    tint = rng.normal(1, 0.03, 3) * rng.uniform(0.76, 1.16)
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = 1 + rng.uniform(-0.1, 0.1) * across + rng.uniform(-0.06, 0.06) * down
    pixels = (pixels - 118) * rng.uniform(0.82, 1.14) + 118
    pixels = np.clip(pixels * tint * slope[..., None], 0, 255)
    blurred = Image.fromarray(pixels.round().astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))
    pixels = np.asarray(blurred, np.float64)
    pixels += rng.normal(0, rng.uniform(2, 7), (height, width, 1)) + rng.normal(0, 1.5, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


def draw_image(kind: str, rng: np.random.Generator) -> Image.Image:
    """Draw an image of a class."""
    view = random_view(rng)
    image = Image.new("RGB", (view.width * SUPERSAMPLING, view.height * SUPERSAMPLING))
    pen = Pen(image)
    backdrop(pen, view, rng)
    clutter(pen, view, rng)
    {"car": add_car, "pedestrian": add_people, "neither": add_things}[kind](pen, view, rng)
    in_front(pen, view, rng)
    return weather(image.resize((view.width, view.height), Image.Resampling.BOX), rng)


def write(path: Path, kind: str, seed: list[int]) -> None:
    rng = np.random.default_rng(seed)
    image = draw_image(kind, rng)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=int(rng.integers(72, 91)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample images.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().folder
    for label, kind in enumerate(CLASSES):
        for number in range(1, PER_CLASS + 1):
            write(folder / "pictures" / kind / f"{kind}_{number:02d}.jpg", kind, [SEED, label, number])
    for number, kind in enumerate(LOOSE, 1):
        write(folder / "to_predict" / f"street_{number}.jpg", kind, [SEED, len(CLASSES), number])


if __name__ == "__main__":
    main()
