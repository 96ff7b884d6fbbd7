"""Heatmaps and exports: what is in the files, and that no token can break out of them."""

from __future__ import annotations

import html
import json
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

import fake_model
import sextant
from sextant.heatmap.document import spans
from sextant.heatmap.palette import METRICS, ink, ramp
from sextant.heatmap.visible import visible

EVIL = "</script><script>alert(1)</script> <!-- {{data}} & \u2028 {{script}}"


@pytest.fixture
def out(client):
    lens = sextant.Lens(sites=["resid_post", "attn_out"], tracked=True)
    steer = sextant.Steer("happy<b>", 1.5, layers="2-3", site="resid_post")
    return client.generate(EVIL, max_new_tokens=20, lens=lens, steer=steer).wait()


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_page_holds_the_readings(out, tmp_path):
    out.lens.heatmap(tmp_path / "h.html", site="attn_out", title="My <title>")
    page = (tmp_path / "h.html").read_text("utf-8")
    data = data_of(page)
    assert data["sites"] == ["resid_post", "attn_out"] and data["site"] == 1 and data["title"] == "My <title>"
    assert "".join(data["inputs"]).startswith(EVIL) and data["promptCount"] == len(out.prompt_token_ids)
    shape = out.lens.top_ids.shape[1:]
    for site, reading in enumerate(data["readings"]):
        texts = np.array([data["strings"][i] for i in reading["top"]], object).reshape(shape)
        assert (texts == out.lens.texts()[site]).all()
        got = np.array(reading["entropy"]).reshape(shape[:2]) / 1000
        np.testing.assert_allclose(got, out.lens.entropy[site], atol=5e-4)  # Thousandths, rounded.
    assert data["steering"][0].startswith("happy<b> × 1.5 · resid_post · layers 2–3")
    assert data["steered"] == {"resid_post": [2, 3]}


def test_tokens_that_look_alike_are_told_apart(client, gateway):
    out = client.generate("Once upon a time", max_new_tokens=8, lens=sextant.Lens()).wait()
    gateway.vocabulary.texts[:] = ["\ufffd"] * len(gateway.vocabulary.texts)  # As parts of characters do.
    data = data_of(out.lens.heatmap().html())
    first = np.array(data["readings"][0]["top"]).reshape(out.lens.top_ids.shape[1:])[..., 0]
    came_next = out.lens.top_ids[0, ..., 0] == out.lens.target_ids
    assert came_next.any() and not came_next.all()
    np.testing.assert_array_equal(first == np.array(data["nextIndex"]), came_next)


def test_no_token_breaks_out_and_nothing_is_fetched(out):
    page = out.lens.heatmap(title=EVIL).html()
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "alert(1)" not in page.replace(html.escape(EVIL), "").split('id="data">')[0]
    assert "default-src 'none'" in page
    assert not re.search(
        r"""(src|href)\s*=|url\(|@import|\bfetch\(|XMLHttpRequest""", page.split('id="data">')[0]
    )
    assert re.search(r"innerHTML|insertAdjacentHTML|document\.write", page) is None


def test_notebook_frame_escapes_the_page(out):
    frame = out.lens._repr_html_()
    assert frame.count("<") == 2 and 'sandbox="allow-scripts"' in frame


def test_logitlenskit_json(out, tmp_path):
    out.lens.save(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert document["meta"]["version"] == 2 and document["meta"]["model"] == "fake-7m"
    assert document["layers"] == list(range(fake_model.LAYERS))
    positions = out.lens.entropy.shape[2]
    assert len(document["input"]) == len(document["tracked"]) == positions
    assert len(document["topk"]) == fake_model.LAYERS and len(document["topk"][0]) == positions
    texts = out.lens.texts()
    for layer in range(fake_model.LAYERS):
        for position in range(positions):
            assert document["topk"][layer][position] == list(texts[0, layer, position])
            p = document["tracked"][position][texts[0, layer, position, 0]][layer]
            assert p == pytest.approx(math.exp(out.lens.top_logprobs[0, layer, position, 0]), abs=1e-5)


def test_untracked_json_says_null_where_it_does_not_know(client, tmp_path):
    out = client.generate("Once upon", max_new_tokens=2, lens=sextant.Lens(top_k=1))
    out.lens.save(tmp_path / "r.json")
    tracked = json.loads((tmp_path / "r.json").read_text("utf-8"))["tracked"]
    values = [p for position in tracked for row in position.values() for p in row]
    assert None in values and any(isinstance(p, float) for p in values)
    with pytest.raises(sextant.SextantError, match="tracked=True"):
        out.lens.tracked  # noqa: B018


def test_pandas(out):
    frame = out.lens.to_pandas()
    assert len(frame) == np.isfinite(out.lens.entropy).sum()
    row = frame[(frame.site == "attn_out") & (frame.layer == 3) & (frame.position == 5)].iloc[0]
    assert row.entropy == out.lens.entropy[1, 3, 5] and row.target_rank == out.lens.target_rank[1, 3, 5]


@pytest.mark.parametrize(("theme", "metric"), [("light", "prob"), ("dark", "rank"), ("light", "kl")])
def test_picture(out, tmp_path, theme, metric):
    path = out.lens.heatmap().save(tmp_path / "h.png", theme=theme, metric=metric, columns=12)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000


def figure_of(out, path) -> Figure:
    """Draws the picture; matplotlib's figure of it."""
    figures = []
    savefig = Figure.savefig

    def kept(figure, *args, **options):
        figures.append(figure)
        savefig(figure, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", kept)
        out.lens.heatmap(path)
    (figure,) = figures
    return figure


def test_pictures_show_spaces_and_bytes_and_say_so(client, gateway, tmp_path):
    out = client.generate([1, gateway.vocabulary.id(" word1")], max_new_tokens=3, lens=True).wait()
    figure = figure_of(out, tmp_path / "h.png")
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"<0xE2>", "·word1", "·there"} <= words and not words & {"there", "\ufffd"}
    legend = " ".join(text.get_text() for text in figure.texts).replace("\u00a0", " ")
    assert "·word  a space before it" in legend and "<0xE2>  a byte of a character" in legend


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
@pytest.mark.parametrize("count", [1, 3, 50])
def test_heading_fits_and_nothing_overlaps(client, count, tmp_path):
    """Every two texts of the picture's frame are apart, whatever its width; cells may hold what they hold."""
    prompt = ["Once", "upon", "a", "time", "in", "a", "small", "ship"][: min(count, 3)]
    out = client.generate(" ".join(prompt), max_new_tokens=max(0, count - 2), lens=sextant.Lens())
    figure = figure_of(out, tmp_path / "h.png")
    assert (tmp_path / "h.png").stat().st_size > 10_000
    figure.draw_without_rendering()  # At its own resolution: saving had another.
    renderer = figure.canvas.get_renderer()
    bar, *panels = figure.axes
    texts = [
        *figure.texts,
        *(text for panel in panels for text in panel.texts if text.get_style() == "italic"),
    ]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in texts if text.get_text().strip()}
    boxes["the colour bar"] = bar.get_window_extent(renderer)
    page = figure.bbox
    for name, box in boxes.items():
        assert box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1, name
        for other, that in boxes.items():
            assert name == other or not box.padded(-1).overlaps(that.padded(-1)), (name, other)
    said = " ".join(boxes)
    for wanted in ("layer", "position", "token\u00a0in", "came\u00a0next", "probability"):
        assert wanted in said or wanted.replace("\u00a0", " ") in said, wanted


def test_stored_vectors_mark_the_layers_they_steer(client, tmp_path):
    client.vectors.put("happy", np.ones((2, 8)), layers=[2, 4], site="resid_pre")
    out = client.generate("Once upon", max_new_tokens=2, lens=True, steer=sextant.Steer("happy@1", 2))
    data = data_of(out.lens.heatmap().html())
    assert data["steered"] == {"resid_pre": [2, 4]}
    assert "resid_pre · layers 2, 4" in data["steering"][0]
    client.vectors.delete("happy")
    gone = data_of(out.lens.heatmap().html())
    assert gone["steered"] == {"": []}


def test_what_cannot_be_seen_is_shown():
    assert visible(" a") == "·a" and visible("  b c") == "··b c" and visible("a") == "a"
    assert visible(" ") == "␣" and visible("  ") == "␣␣" and visible("") == "∅" and visible("\n") == "⏎"
    assert visible("\ufffd") == "\ufffd"
    assert (
        visible("\xa0") == "U+00A0" and visible("\ufe0f") == "U+FE0F" and visible(" \u0301x") == "·◌\u0301x"
    )


def test_bytes_that_are_no_whole_characters(client, gateway, tmp_path):
    gateway.vocabulary.bytes[gateway.vocabulary.id("a \ufffd")] = b"a \xf0\x9f"
    gateway.vocabulary.id("\ufffd!")  # Its own bytes: a token may hold the replacement character itself.
    last = len(gateway.vocabulary.texts)
    prompt = [1, last - 2, last - 1]
    out = client.generate(prompt, max_new_tokens=2, lens=sextant.Lens(top_k=last - 1)).wait()
    expected = ["<0xE2>", "a <0xF0><0x9F>", "\ufffd!"]
    assert data_of(out.lens.heatmap().html())["inputs"][:3] == expected
    assert {*expected} <= {*out.lens.texts().ravel()}
    assert client.tokenize("\ufffd").texts == ["<0xE2>"] and client.detokenize([1]) == "\ufffd"
    gateway.vocabulary.token_bytes = lambda ids: []  # A server that sends none.
    with sextant.Client(client.address) as other:
        assert other.tokenize("\ufffd").texts == ["\ufffd"]


def test_picture_of_missing_readings(client, gateway, tmp_path):
    gateway.missing = set(range(100))
    out = client.generate("Once upon", max_new_tokens=1, lens=True)
    out.lens.heatmap(tmp_path / "h.png")
    assert data_of(out.lens.heatmap().html())["missing"] == 100


def test_unknown_formats_and_sites(out, tmp_path):
    with pytest.raises(sextant.SextantError, match=r"\.html"):
        out.lens.heatmap(tmp_path / "h.gif")
    with pytest.raises(sextant.SextantError, match="attn_out"):
        out.lens.heatmap(site="mlp_out")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_ramps_are_even_and_legible(theme):
    for metric in METRICS:
        colours = ramp(metric, theme)
        luminance = [_luminance(c) for c in colours]
        steps = np.diff(luminance)
        assert (steps < 0).all() if theme == "light" else (steps > 0).all()
        for colour in colours:  # 4.5 is WCAG's least contrast for text of this size.
            a, b = sorted((_luminance(colour), _luminance(ink(colour))))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (metric.key, colour)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_spans():
    assert spans([3, 10, 11, 12, 5]) == "3, 5, 10–12" and spans([]) == ""
