"""Where a unit looks: from a place on its map to a box of the network's input, by the receptive field.

Boxes are [x0, y0, x1, y1) in pixels of the network's input; they may reach beyond the image, into the padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlcli.backbones.receptive_field import ReceptiveField

Box = tuple[int, int, int, int]
Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the places of one layer's maps see of the input. Pairs are (height, width)."""

    image: Pair
    """of the network's input, in pixels"""
    places: Pair
    """of the maps"""
    field: ReceptiveField | None
    """where each place sees; None where it sees the whole image"""

    def box(self, row: int, column: int) -> Box:
        """The receptive field of a place, exactly: a pixel outside cannot change the place's value.

        The whole input where attention, pooling or a linear layer has mixed all places.
        """
        height, width = self.image
        if self.field is None:
            return 0, 0, width, height
        (down, across), low, high = self.field.jump, self.field.low, self.field.high
        return (
            round(across * column + low[1]),
            round(down * row + low[0]),
            round(across * column + high[1]) + 1,
            round(down * row + high[0]) + 1,
        )

    def covers(self, box: Box) -> bool:
        """Whether a box holds the whole input."""
        height, width = self.image
        return box[0] <= 0 and box[1] <= 0 and box[2] >= width and box[3] >= height

    def cell(self, row: int, column: int) -> Box | None:
        """The part of the input that is nearest to a place: its hot region. None where there is one place only."""
        if self.places == (1, 1):
            return None
        height, width = self.image
        x0, x1 = width * column / self.places[1], width * (column + 1) / self.places[1]
        y0, y1 = height * row / self.places[0], height * (row + 1) / self.places[0]
        return round(x0), round(y0), max(round(x1), round(x0) + 1), max(round(y1), round(y0) + 1)
