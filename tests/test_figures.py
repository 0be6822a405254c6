"""Pictures are well-formed, hold what they were given, and escape it."""

import xml.etree.ElementTree as ET

import pytest

from bert4rec_jax.figures import COLOURS, Bar, bar_chart, line_chart, shade, shortened

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('1')</script> & \"co\""


def texts(drawn):
    return [element.text for element in ET.fromstring(drawn).iter(f"{SVG}text")]


def test_a_curve_goes_through_its_points():
    drawn = line_chart("loss", {"a": [(0, 0.0), (50, 1.0), (100, 2.0)]}, levels={"goal": 1.0})
    line = ET.fromstring(drawn).find(f"{SVG}polyline").get("points").split()
    (x0, y0), (x1, y1), (x2, y2) = ([float(v) for v in point.split(",")] for point in line)
    assert x1 - x0 == pytest.approx(x2 - x1) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2, "up is up"
    assert {"loss", "a", "goal", "step"} <= set(texts(drawn))


@pytest.mark.parametrize(("last", "ticks"), [(1, "0 1"), (3, "0 1 2 3"), (10, "0 2 4 6 8 10")])
def test_steps_are_labelled_where_they_are(last, ticks):
    drawn = texts(line_chart("loss", {"a": [(0, 1e-9), (last, 2e-9)]}))
    assert drawn[7 : drawn.index("step")] == ticks.split()


@pytest.mark.parametrize("points", [[(0, 0.0)], [(3, 0.5)], [(1, 2.0), (2, 2.0)]])
def test_curves_without_extent(points):
    for from_zero in (True, False):
        assert "nan" not in line_chart("flat", {"a": points}, from_zero=from_zero)


def test_bars_are_as_long_as_their_values():
    drawn = bar_chart("hr", [Bar("a", 0.1), Bar("b", 0.2, (0.15, 0.3), "9 cases"), Bar("c", 0.0)])
    widths = [float(r.get("width")) for r in ET.fromstring(drawn).findall(f"{SVG}rect")[1:]]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2) and widths[2] == 0
    assert "0.200  9 cases" in texts(drawn)


def test_hostile_names_stay_text():
    for drawn in (
        line_chart(HOSTILE, {HOSTILE: [(0, 1.0)]}, levels={HOSTILE: 1.0}),
        bar_chart(HOSTILE, [Bar(HOSTILE, 1.0, note=HOSTILE)]),
    ):
        tags = {element.tag for element in ET.fromstring(drawn).iter()}
        assert f"{SVG}script" not in tags and "<script" not in drawn
        assert ET.fromstring(drawn).get("aria-label") == HOSTILE


def test_control_characters_leave_a_picture_whole():
    """Titles of shops have vertical tabs and the like; browsers refuse a picture with one."""
    name = "a\x0bb\x1b[31mc\x00\ufffed \U0001f469\u200d é\tf"
    drawn = bar_chart(name, [Bar(name, 1.0)])
    label = ET.fromstring(drawn).get("aria-label")
    assert label == "a�b�[31mc��d \U0001f469\u200d é f"  # a tab in an attribute is a space


def test_long_names_are_cut():
    assert shortened("short", 100) == "short"
    cut = shortened("x" * 50, 66)
    assert len(cut) == 10 and cut.endswith("…")


def luminance(colour):
    if colour.startswith("#"):  # three digits, each stands for two
        channels = [17 * int(digit, 16) for digit in colour[1:]]
    else:
        channels = [int(value) for value in colour[4:-1].split(",")]
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_on_shades_can_be_read():
    """WCAG 2: a contrast of at least 4.5."""
    for step in range(101):
        high, low = sorted(map(luminance, shade(step / 100)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, step


def test_every_curve_is_drawn():
    curves = {f"run {n}": [(0.0, 0.0), (1.0, float(n))] for n in range(len(COLOURS) + 2)}
    drawn = line_chart("curves", curves)
    assert drawn.count("<polyline") == len(curves)
    assert all(name in drawn for name in curves)
