"""The figures of many pictures, and what the page says of them."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hep2flow.cells import encode_png
from hep2flow.reporting import figures, galleries, sentences
from hep2flow.reporting.page import illustrations, render, write
from hep2flow.reporting.report_content import ReportContent

from .content import make_content, with_pictures
from .test_figures import texts


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return with_pictures(make_content())


def pictures(svg: str) -> list[np.ndarray]:
    """The pictures that an SVG holds, in order, RGB."""
    found = re.findall(r'href="data:image/png;base64,([^"]+)"', svg)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")) for data in found]


def drawn(content: ReportContent, mistakes: pd.DataFrame) -> str:
    return figures.to_svg(galleries.mistakes(mistakes, content.originals, content.cells, 8, "a model"))


def test_each_mistake_is_shown_as_it_came_as_seen_and_with_its_heat(content: ReportContent) -> None:
    table = content.models[0].mistakes
    assert table is not None
    svg = drawn(content, table)
    words = texts(svg)
    cells = content.cells.set_index("cell_id")
    assert len(pictures(svg)) == 3 * len(table)
    assert all(max(picture.shape) <= figures.THUMBNAIL for picture in pictures(svg))
    for heading in ("original", "as seen", "Grad-CAM", "a model"):
        assert heading in words
    for mistake in table.to_dict("records"):
        assert f"with {100 * mistake['confidence']:.1f} %" in words
        assert mistake["cell_id"] in words
        assert f"specimen {cells.loc[mistake['cell_id'], 'specimen_id']}" in words
    assert f"called: {figures.display_name(table['predicted'].iloc[0])}" in words


def test_the_outline_is_drawn_where_a_mask_of_the_pictures_size_is_known(content: ReportContent) -> None:
    table = content.models[0].mistakes
    assert table is not None
    one, cell = table.head(1), table["cell_id"].iloc[0]
    image = encode_png(np.zeros((40, 30), np.uint8))
    square = np.zeros((40, 30), bool)
    square[10:30, 5:25] = True

    def outlined(mask: np.ndarray | None) -> bool:
        originals = {cell: (image, None if mask is None else encode_png(mask))}
        return figures.SERIES[1] in figures.to_svg(galleries.mistakes(one, originals, content.cells))

    assert outlined(square)
    assert outlined(np.ones((40, 30), bool))
    assert not outlined(np.zeros((40, 30), bool))
    assert not outlined(None)
    assert not outlined(square[:20])  # of a cropped cell: of another size


def test_heat_colours_what_is_hot_and_leaves_the_rest_grey(content: ReportContent) -> None:
    table = content.models[0].mistakes
    assert table is not None
    hot = np.zeros((64, 64), np.uint8)
    hot[:32] = 255
    seen = encode_png(np.full((64, 64), 80, np.uint8))
    *_, overlay = pictures(drawn(content, table.head(1).assign(seen=seen, heat=encode_png(hot))))
    assert (overlay[40:] == 80).all()
    assert np.ptp(overlay[:24].astype(int), axis=2).min() > 20


def test_a_network_without_heat_and_unknown_facts_leave_gaps_not_errors(content: ReportContent) -> None:
    bare = with_pictures(make_content(), heat=False)
    table = bare.models[0].mistakes
    assert table is not None
    cells = bare.cells.assign(specimen_id=None, intensity=None)
    svg = figures.to_svg(galleries.mistakes(table, {}, cells))
    assert len(pictures(svg)) == len(table)
    assert "Grad-CAM" not in texts(svg)
    assert "specimen" not in " ".join(texts(svg))
    told = sentences.mistakes(bare.models[0], cells)
    assert "intermediate" not in told
    assert "specimen" not in told


def test_the_reading_says_what_the_mistakes_have_in_common(content: ReportContent) -> None:
    model = content.models[0]
    assert model.mistakes is not None
    table = model.mistakes.head(4).assign(truth=["a", "a", "a", "b"], predicted=["b_c", "b_c", "b_c", "a"])
    cells = pd.DataFrame(
        {
            "cell_id": table["cell_id"].to_numpy(),
            "intensity": ["intermediate", "positive", "positive", "positive"],
            "specimen_id": ["7", "7", "8", "9"],
        }
    )
    wrong = int((model.predictions["truth"] != model.predictions["predicted"]).sum())
    assert sentences.mistakes(replace(model, mistakes=table), cells) == (
        f"Of the 4 most confident of {wrong} mistakes 3 are a cells called b c, 25.0 % are intermediate cells and "
        "50.0 % are of specimen 7."
    )


def test_a_batch_shows_its_cells_with_their_patterns(content: ReportContent) -> None:
    mixed, plain = (model.batch for model in content.models)
    assert mixed is not None
    assert plain is not None
    svg = figures.to_svg(galleries.augmented(mixed))
    assert len(pictures(svg)) == 16
    assert any("+ " in text for text in texts(svg))
    assert not any("+ " in text for text in texts(figures.to_svg(galleries.augmented(plain))))
    mixing, without = map(sentences.augmentations, content.models)
    assert "horizontal flip (0.5), quarter turns, cutout (side 0.5), mixup (0.8); each cell is mixed" in mixing
    assert "cutout (side 0.5)." in without
    assert "vertical" not in mixing
    none = {**content.models[0].recipe, "augment": {"horizontal_flip": 0.0}, "batch": {"mixup": 0.0, "cutmix": 0.0}}
    assert "augments nothing" in sentences.augmentations(replace(content.models[0], recipe=none))


def test_the_page_shows_both_and_names_the_papers_figures(content: ReportContent, tmp_path: Path) -> None:
    write(content, tmp_path)
    assert (tmp_path / "index.html").stat().st_size < 8_000_000
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    captions = [illustration.caption for illustration in illustrations(content).values()]
    for file, batch in (("convnext-b", 6), ("coat-mini", 7)):
        assert f'id="figure-mistakes-{file}"' in page
        assert f'id="figure-batch-{file}"' in page
        assert (tmp_path / "figures" / f"mistakes-{file}.svg").exists()
        assert any(words.startswith("Augmented") and words.endswith(f"Figure {batch})") for words in captions)
    for figure in (1, 2, 5, 8):
        assert any(f"(compare the paper's Figure {figure})" in words for words in captions)
    assert page.index('id="figure-mistakes-convnext-b"') < page.index("The most confident mistakes of")
    assert page.index('id="method"') < page.index('id="figure-batch-coat-mini"') < page.index('id="provenance"')
    assert figures.to_svg(galleries.augmented(content.models[0].batch)) == figures.to_svg(  # type: ignore[arg-type]
        galleries.augmented(content.models[0].batch)  # type: ignore[arg-type]
    )


def test_whole_train_is_held_beside_the_papers_figure_9() -> None:
    whole = make_content(protocol="whole-train", selected_on_test=True)
    captions = {name: shown.caption for name, shown in illustrations(whole).items()}
    assert captions["confusion-coat-mini"].endswith("(compare the paper's Figure 9)")
    assert "Figure" not in captions["confusion-convnext-b"]


def test_reservations_stand_in_the_new_figures_too() -> None:
    chosen = with_pictures(make_content(selected_on_test=True))
    for name, illustration in illustrations(chosen).items():
        if name.startswith(("mistakes-", "batch-")):
            assert "not a test result" in " ".join(texts(illustration.document))


def test_evaluations_without_pictures_and_models_without_mistakes_have_no_gallery(content: ReportContent) -> None:
    page = render(make_content())
    for words in ("figure-mistakes", "figure-batch", "Augmented"):
        assert words not in page
    right = replace(content.models[0], mistakes=content.models[0].mistakes.iloc[:0])  # type: ignore[union-attr]
    assert f"mistakes-{right.family}" not in illustrations(replace(content, models=[right]))
