"""One self-contained HTML page of a report: style, script, data and pictures are all within it."""

import html
import json
from pathlib import Path
from typing import Any

from ...vis.charts import COLORS
from .curves import PLOTS
from .metrics import SCORE_NAMES
from .report import report_data, text_table
from .results import BenchmarkReport
from .thumbnails import TRUTH, thumbnails

_PARTS = Path(__file__).parent / "page_parts"
_DIGITS = 4
"""Decimals of a number in per cent; the page shows at most two."""


def html_page(report: BenchmarkReport, pictures: int = 6) -> str:
    """The page as text.

    Args:
        pictures: of how many of the worst sequences frames are shown, where frames are at hand.
    """
    data = json.dumps(_page_data(report, pictures), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(f"{report.dataset}: tracking results"),
        "style": (_PARTS / "report.css").read_text(encoding="utf-8"),
        "table": html.escape(text_table(report)),
        "data": data.replace("<", "\\u003c"),  # nothing in the data can end the element it stands in
        "script": (_PARTS / "report.js").read_text(encoding="utf-8"),
    }
    page = (_PARTS / "report.html").read_text(encoding="utf-8")
    pieces = page.split("@@")  # text and names of parts in turn
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _page_data(report: BenchmarkReport, pictures: int) -> dict[str, Any]:
    """What the script shows: `report_data` without what it does not need, with rounded numbers."""
    full = report_data(report)
    trackers = []
    for i, tracker in enumerate(full["trackers"]):
        rows = [tracker["sequences"].get(name) for name in report.names]
        trackers.append({
            "label": tracker["label"],
            "color": COLORS[i % len(COLORS)],
            "scores": _numbers(tracker["scores"]),
            "deviation": _numbers(tracker["deviation"]),
            "fps": tracker["fps"],
            "coverage": f"{report.total - len(tracker['missing'])}/{report.total}",
            "curves": tracker["curves"] and {name: _rounded(curve) for name, curve in tracker["curves"].items()},
            "attributes": {name: _numbers(scores) for name, scores in tracker["attributes"].items()},
            "sequences": [_numbers(row) for row in rows],
        })
    shown = thumbnails(report, pictures)
    return {
        "dataset": report.dataset,
        "scored": report.scored,
        "remarks": full["remarks"],
        "scoreNames": SCORE_NAMES,
        "names": report.names,
        "attributes": {name: len(names) for name, names in report.attributes.items()},
        "plots": [{"name": plot.name, "title": plot.title, "score": SCORE_NAMES.index(plot.score), "x": plot.x_label,
                   "thresholds": plot.thresholds.tolist()} for plot in PLOTS],
        "trackers": trackers,
        "truthColor": TRUTH,
        "pictures": [{"sequence": name, "frames": [{"frame": picture.frame, "uri": picture.uri, "overlaps": {
            label: round(value, 2) for label, value in picture.overlaps.items()}} for picture in frames]}
            for name, frames in shown.items()],
    }


def _numbers(scores: dict[str, float | None] | None) -> list[float | None] | None:
    """Scores in the order of their names."""
    return scores and _rounded(list(scores.values()))


def _rounded(values: list[float | None]) -> list[float | None]:
    return [None if value is None else round(value, _DIGITS) for value in values]
