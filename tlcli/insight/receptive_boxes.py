"""Map a position on a layer's maps to the box of the network's input that it sees.

Boxes are [x0, y0, x1, y1) in pixels of the network's input; they may extend beyond the image, into the padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlcli.backbones.convolution_arithmetic import Pair
from tlcli.backbones.receptive_field import ReceptiveField

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class ReceptiveBoxes:
    """The boxes that the positions of one layer's maps see. Pairs are (height, width)."""

    input_size: Pair
    """Size of the network's input in pixels."""
    map_size: Pair
    """Positions of a map; (1, 1) for layers without spatial positions."""
    field: ReceptiveField | None
    """The receptive field; None if each position sees the whole input."""

    @property
    def mixes_positions(self) -> bool:
        """Whether there are several positions and each of them sees the whole input, as after attention."""
        return self.field is None and self.map_size != (1, 1)

    def box(self, row: int, column: int) -> Box:
        """Return the exact receptive field of a position: no pixel outside it can change the position's value.

        It is the whole input if attention, pooling or a linear layer has mixed all positions.
        """
        height, width = self.input_size
        if self.field is None:
            return 0, 0, width, height
        (down, across), low, high = self.field.jump, self.field.low, self.field.high
        return (
            round(across * column + low[1]),
            round(down * row + low[0]),
            round(across * column + high[1]) + 1,
            round(down * row + high[0]) + 1,
        )

    def covers_input(self, box: Box) -> bool:
        """Return whether a box contains the whole input."""
        height, width = self.input_size
        return box[0] <= 0 and box[1] <= 0 and box[2] >= width and box[3] >= height

    def cell(self, row: int, column: int) -> Box | None:
        """Return a position's cell of the grid that divides the input evenly; None if there is only one position."""
        if self.map_size == (1, 1):
            return None
        height, width = self.input_size
        x0, x1 = width * column / self.map_size[1], width * (column + 1) / self.map_size[1]
        y0, y1 = height * row / self.map_size[0], height * (row + 1) / self.map_size[0]
        return round(x0), round(y0), max(round(x1), round(x0) + 1), max(round(y1), round(y0) + 1)
