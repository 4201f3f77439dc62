"""What a pretext task sees and makes, as one image to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from hpcddrl.types import Array

GAP = 2  # pixels between images
GROUND = 96  # the gaps' grey
MARK = torch.tensor([1.0, 0.2, 0.2])  # the colour of points


def marked(images: Tensor, points: Tensor) -> Tensor:
    """Return images [N, 3, H, W] with a small cross at each of the points [N, P, 2] (row, column)."""
    coloured = images.expand(-1, 3, -1, -1).clone()
    height, width = images.shape[-2:]
    for image, places in zip(coloured, points.round().long(), strict=True):
        for dy, dx in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
            rows, columns = (places[:, 0] + dy).clamp(0, height - 1), (places[:, 1] + dx).clamp(0, width - 1)
            image[:, rows, columns] = MARK[:, None]
    return coloured


def grid(rows: Sequence[Tensor]) -> Array:
    """Return one image [H', W', 3] u8 with a row for each kind of images [N, 1 or 3, H, W] in [0, 1], N columns.

    Raises:
        ValueError: no rows, or images of different numbers or sizes.
    """
    shapes = {(len(row), *row.shape[-2:]) for row in rows}
    if len(shapes) != 1:
        raise ValueError(f"rows = {sorted(shapes)}: must be images of one number and size; leave out what is not")
    ((count, height, width),) = shapes
    canvas = np.full((len(rows) * (height + GAP) + GAP, count * (width + GAP) + GAP, 3), GROUND, np.uint8)
    for r, row in enumerate(rows):
        pixels = (
            (row.detach().expand(-1, 3, -1, -1).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        )
        for c, image in enumerate(pixels):
            top, left = GAP + r * (height + GAP), GAP + c * (width + GAP)
            canvas[top : top + height, left : left + width] = image
    return canvas


def write_png(path: Path, rows: Sequence[Tensor], names: Sequence[str] = ()) -> None:
    """Write the `grid` of rows as a PNG whose text ``rows`` names them; whoever reads it gets the old one or the new.

    Raises:
        ValueError: see `grid`.
        OSError: the file cannot be written.
    """
    about = PngInfo()
    about.add_text("rows", ", ".join(names))
    new = path.with_suffix(".new")
    Image.fromarray(grid(rows)).save(new, format="PNG", pnginfo=about)
    os.replace(new, path)
