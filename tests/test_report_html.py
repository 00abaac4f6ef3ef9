"""The HTML page: whole in itself, safe with any name, with the data that it shows; pictures of the worst sequences."""

import base64
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lib.test.analysis import run
from lib.test.analysis.page import html_page
from lib.test.analysis.results import ResultFolder, evaluate_benchmark
from lib.test.analysis.thumbnails import QUALITY, WIDTH, thumbnails, worst_sequences
from lib.utils.errors import UserError
from lib.vis.charts import COLORS
from tests.trees import picture

FRAMES = 12


class Pictures:
    """Frames that exist in memory only; those in `broken` cannot be read."""

    def __init__(self, count=FRAMES, broken=False):
        self.count = count
        self.broken = broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.broken:
            raise UserError(f"cannot read frame {index}")
        return picture(index, (640, 360))


def make(name, shift, frames=True):
    gt = np.array([[10.0 * i + 5, 60, 40, 30] for i in range(FRAMES)])
    gt[4] = np.nan
    return SimpleNamespace(name=name, dataset="otb", ground_truth=gt, visible=None, shift=shift,
                           attributes=("FM", "OCC") if shift else ("FM",), frames=Pictures() if frames else None)


@pytest.fixture
def sequences():
    return [make("easy", 0), make("hard", 60), make("middle", 25), make("blind", 400, frames=False)]


@pytest.fixture
def report(tmp_path, sequences):
    """A tracker that fails by each sequence's `shift`, another that is half as bad, with a nasty name."""
    sources = []
    for label, part in (("A", 1.0), ("</script><b>&\"'", 0.5)):
        folder = tmp_path / f"{part}"
        folder.mkdir()
        for sequence in sequences:
            boxes = np.nan_to_num(sequence.ground_truth, nan=5.0)
            boxes[1:, 0] += part * sequence.shift
            np.savetxt(folder / f"{sequence.name}.txt", boxes, delimiter=",")
        sources.append(ResultFolder(label, folder))
    return evaluate_benchmark(sources, sequences, "otb")


class Page(HTMLParser):
    """Tags with their attributes, and the text of the data element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self.open = [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open = (tag, dict(attributes))

    def handle_data(self, data):
        if self.open and self.open[1].get("id") == "data":
            self.data += data
            self.open = None


def test_nothing_is_loaded_from_elsewhere(report):
    text = html_page(report)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= {"html", "head", "meta", "title", "style", "body", "main", "noscript", "p",
                                             "pre", "script"}
    assert not [attributes for _, attributes in page.tags if {"src", "href"} & set(attributes)]
    links = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert links == {"http://www.w3.org/2000/svg"}  # a name, nothing is fetched from it
    assert "@import" not in text and "url(" not in text and "@@" not in text


def test_any_name_is_safe(report):
    text = html_page(report)
    assert text.count("</script>") == 2 and "<b>" not in text
    assert json.loads(Page(text).data)["trackers"][0]["label"] == "</script><b>&\"'"


def test_the_data_are_those_of_the_report(report):
    data = json.loads(Page(html_page(report)).data)
    for shown, tracker in zip(data["trackers"], report.trackers[::-1], strict=True):  # best first
        np.testing.assert_allclose(shown["scores"], list(tracker.scores.as_dict().values()), atol=1e-4)
        np.testing.assert_allclose(shown["curves"]["precision"], tracker.scores.precision, atol=1e-4)
        assert shown["sequences"][0][0] == pytest.approx(100 * tracker.sequences["easy"].auc, abs=1e-4)
        assert shown["attributes"]["OCC"][0] == pytest.approx(
            report.scores_on(tracker, ["hard", "middle", "blind"]).AUC, abs=1e-4)
    assert data["attributes"] == {"FM": 4, "OCC": 3} and data["names"] == ["easy", "hard", "middle", "blind"]
    assert data["trackers"][0]["color"] == COLORS[0] and data["trackers"][0]["fps"] is None


def test_pictures_of_the_worst_sequences_whose_frames_are_here(report):
    assert worst_sequences(report, 3) == ["blind", "hard", "middle"]
    shown = thumbnails(report, 2)
    assert list(shown) == ["hard", "middle"] and thumbnails(report, 0) == {}
    for one in shown["hard"]:
        kind, _, content = one.uri.partition(",")
        image = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
        assert kind == "data:image/jpeg;base64" and image.shape == (WIDTH * 360 // 640, WIDTH, 3)
        assert len(content) < 60_000 and QUALITY < 100
        assert one.frame != 5 and one.overlaps["A"] == 0  # the fifth frame has no annotation
    data = json.loads(Page(html_page(report, 1)).data)
    assert [one["sequence"] for one in data["pictures"]] == ["hard"]


def test_boxes_are_where_they_belong(report, sequences):
    first = thumbnails(report, 1)["hard"][0]
    image = cv2.imdecode(np.frombuffer(base64.b64decode(first.uri.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    x, y = sequences[1].ground_truth[first.frame - 1][:2] * WIDTH / 640
    assert image[round(y) - 1:round(y) + 2, round(x) + 10].min(axis=1).max() > 180  # the annotation is white
    x += 60 * WIDTH / 640
    edge = image[round(y) - 1:round(y) + 2, round(x) + 10].astype(int)  # tracker A, second best, is orange (BGR)
    assert max(r - b for b, _, r in edge) > 60


def test_frames_that_cannot_be_read_cost_only_the_pictures(report, sequences, caplog):
    sequences[1].frames.broken = True
    assert list(thumbnails(report, 1)) == ["middle"]
    assert "no pictures of hard: cannot read frame" in caplog.text


def test_late_starters_are_drawn_at_the_right_frame(tmp_path):
    sequence = make("late", 0)
    np.savetxt(tmp_path / "late.txt", sequence.ground_truth[5:])
    (_, pictures), = thumbnails(evaluate_benchmark([ResultFolder("T", tmp_path)], [sequence], "otb"), 1).items()
    assert [np.isnan(one.overlaps["T"]) or one.overlaps["T"] == 1 for one in pictures] == [True] * 3
    assert pictures[-1].overlaps["T"] == 1


def test_a_tracker_without_scores_is_shown_without(report, sequences, tmp_path):
    (tmp_path / "1.0" / "easy.txt").unlink()
    part = evaluate_benchmark(list(report.sources.values()), sequences, "otb")
    data = json.loads(Page(html_page(part)).data)
    assert data["trackers"][1]["scores"] is None and data["trackers"][1]["coverage"] == "3/4"
    assert data["trackers"][1]["sequences"][0] is None and data["trackers"][1]["curves"] is None


def test_the_page_is_one_of_the_formats(report, tmp_path):
    (path,) = run.write_report(report, tmp_path / "out", ["html"], pictures=0)
    assert path.name == "report.html" and path.stat().st_size < 60_000
