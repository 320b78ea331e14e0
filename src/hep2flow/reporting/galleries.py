"""Figures of many small pictures: the most confident mistakes with their heat maps, and augmented training cells."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hep2flow.cells import decode_png
from hep2flow.reporting.figures import SERIES, STYLE, WIDTH, display_name, shorten, single_plot, thumbnail

Pixels = npt.NDArray[np.uint8]
Originals = Mapping[str, tuple[bytes, bytes | None]]  # cell_id -> (image, mask or None)

HEAT_MAP = "inferno"  # its lightness increases monotonically: readable in grey too
GAP = 0.06  # between pictures; a picture's side is 1


@matplotlib.rc_context(STYLE)
def mistakes(table: pd.DataFrame, originals: Originals, cells: pd.DataFrame, bits: int = 8, title: str = "") -> Figure:
    """One row per mistake: the original with its mask's outline, the cell as the network saw it, Grad-CAM, and facts.

    Args:
        table: See :func:`hep2flow.stages.evaluation_images.mistake_images`.
        originals: A cell that is not among them has no first picture.
        cells: cell_id, intensity, specimen_id of these cells at least.
        bits: Significant bits of a pixel of the originals.
        title: Above the figure; may be empty.
    """
    facts = cells.set_index("cell_id")
    with_heat = table["heat"].notna().all()
    headings = ["original", "as seen", *(["Grad-CAM"] if with_heat else [])]
    figure, axes = _picture_axes(title, WIDTH / 0.84, len(table) * (1 + GAP) + 0.3)
    for column, heading in enumerate(headings):
        axes.text(column * (1 + GAP) + 0.5, -0.08, heading, ha="center", va="bottom", size=8)
    for row, mistake in enumerate(table.to_dict("records")):
        top = row * (1 + GAP)
        if mistake["cell_id"] in originals:
            image, mask = originals[mistake["cell_id"]]
            _picture(axes, thumbnail(image, bits), 0, top)
            if mask is not None and decode_png(mask).shape == decode_png(image).shape[:2]:
                _outline(axes, thumbnail(mask, 8), 0, top)
        seen = thumbnail(mistake["seen"], 8)
        _picture(axes, seen, 1 + GAP, top)
        if with_heat:
            _picture(axes, _heat_overlay(seen, thumbnail(mistake["heat"], 8)), 2 * (1 + GAP), top)
        cell = facts.loc[mistake["cell_id"]]
        words = [
            f"truth: {display_name(mistake['truth'], 19)}",
            f"called: {display_name(mistake['predicted'], 19)}",
            f"with {100 * mistake['confidence']:.1f} %",
            *([] if pd.isna(cell["specimen_id"]) else [shorten(f"specimen {cell['specimen_id']}", 27)]),
            *([] if pd.isna(cell["intensity"]) else [cell["intensity"]]),
            shorten(str(mistake["cell_id"]), 27),
        ]
        axes.text(len(headings) * (1 + GAP) + 0.05, top + 0.5, "\n".join(words), va="center", size=8, linespacing=1.15)
    return figure


@matplotlib.rc_context(STYLE)
def augmented(table: pd.DataFrame, title: str = "") -> Figure:
    """Augmented training cells, :attr:`ModelResult.batch`, with their patterns (the paper's Figures 6 and 7)."""
    columns, mixed = 4, table["mixed_with"].notna().any()
    height = 1.4 if mixed else 1.22
    figure, axes = _picture_axes(title, columns * (1 + GAP) - GAP, -(-len(table) // columns) * height, above=0)
    for place, cell in enumerate(table.to_dict("records")):
        left, top = place % columns * (1 + GAP), place // columns * height
        _picture(axes, thumbnail(cell["image"], 8), left, top)
        names = [cell["pattern"], *([cell["mixed_with"]] if mixed else [])]
        text = "\n+ ".join(display_name(name, 18) for name in names)
        axes.text(left + 0.5, top + 1.02, text, ha="center", va="top", size=8, linespacing=1.1)
    return figure


def _picture_axes(title: str, width: float, height: float, above: float = 0.3) -> tuple[Figure, Axes]:
    """Bare axes whose unit is a picture's side; the first row of pictures is at 0, ``above`` lies over it."""
    # One plot for all: the layout of one for each picture takes seconds.
    figure, axes = single_plot(title, height=WIDTH * height / width)
    axes.set_axis_off()
    axes.set(aspect="equal", xlim=(0, width), ylim=(height - above, -above))
    return figure, axes


def _box(pixels: Pixels, left: float, top: float) -> tuple[float, float, float, float]:
    """Left, right, top and bottom of a picture centred in its unit square."""
    height, width = (side / max(pixels.shape[:2]) for side in pixels.shape[:2])
    x, y = left + (1 - width) / 2, top + (1 - height) / 2
    return x, x + width, y, y + height


def _picture(axes: Axes, pixels: Pixels, left: float, top: float) -> None:
    x0, x1, y0, y1 = _box(pixels, left, top)
    axes.imshow(pixels, extent=(x0, x1, y1, y0), cmap="gray", vmin=0, vmax=255, interpolation="none")


def _outline(axes: Axes, mask: Pixels, left: float, top: float) -> None:
    inside = np.pad(mask, 1)  # closes the outline of a mask that reaches the border
    x0, x1, y0, y1 = _box(mask, left, top)
    height, width = mask.shape
    x = x0 + (np.arange(width + 2) - 0.5) / width * (x1 - x0)
    y = y0 + (np.arange(height + 2) - 0.5) / height * (y1 - y0)
    if mask.any():
        axes.contour(x, y, inside, levels=[127.5], colors=[SERIES[1]], linewidths=0.9)


def _heat_overlay(seen: Pixels, heat: Pixels) -> Pixels:
    """The cell in grey, and over it the heat's colour, the more opaque the hotter."""
    grey = (seen if seen.ndim == 2 else seen.max(axis=2))[..., None] / 255.0
    share = heat[..., None] / 255.0
    color = matplotlib.colormaps[HEAT_MAP](heat)[..., :3]
    mixed: Pixels = np.rint(255 * (grey * (1 - 0.7 * share) + color * 0.7 * share)).astype(np.uint8)
    return mixed
