"""What a comparison of trackers gave: a table, one line for each run, and a chart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.statistics import Summary, summarise
from ..utils.tables import aligned, interval, markdown, spread
from ..vis.charts import save_speed_chart
from .comparison import FrameTimes, Run, read_times
from .scoring import ScoreRecord, TestSet

SCORES = ("Precision", "OP50")
"""Of the table, besides AUC."""


@dataclass
class Comparison:
    """What a comparison gave.

    Attributes:
        test_set: its name, number of sequences and convention, for the notes.
        runs: label -> each run that is done, with what it scored; labels in the order of the table.
        times: label -> time of a frame.
        sizes: label -> numbers of layers and parameters.
        machine: what frames were timed on.
        reference: label that the others are compared with; empty for none.
        pooled: whether the convention takes scores over all frames together.
    """

    test_set: str
    runs: dict[str, list[tuple[Run, ScoreRecord]]]
    times: dict[str, FrameTimes]
    sizes: dict[str, tuple[int, int] | None]
    machine: str = ""
    reference: str = ""
    pooled: bool = False

    def score(self, label: str, name: str = "AUC") -> Summary | None:
        """Of a label over its runs; None where none is done."""
        values = [record.scores[name] for _, record in self.runs[label]]
        return summarise(values) if values else None

    def by_sequence(self, label: str) -> dict[str, float]:
        """AUC of each sequence in per cent, the mean over the runs of a label; NaN where nothing is annotated."""
        records = [record.sequences for _, record in self.runs[label]]
        return {name: float(np.mean([record[name] for record in records])) for name in (records[0] if records else ())}

    def difference(self, label: str) -> Summary | None:
        """AUC minus the reference's, paired by sequence; None for the reference itself, and where one is not done."""
        if not self.reference or label == self.reference:
            return None
        own, others = self.by_sequence(label), self.by_sequence(self.reference)
        values = [own[name] - others[name] for name in own if name in others]
        values = [value for value in values if np.isfinite(value)]
        return summarise(values) if values else None

    def rows(self) -> list[dict[str, str]]:
        """The table's rows: a text for each column."""
        several = any(len(runs) > 1 for runs in self.runs.values())
        whole = self.score(self.reference) if self.reference else None
        rows = []
        for label, runs in self.runs.items():
            auc, times, size = self.score(label), self.times.get(label), self.sizes.get(label)
            row = {"tracker": label, **({"runs": str(len(runs))} if several else {}),
                   "layers": str(size[0]) if size else "", "params (M)": f"{size[1] / 1e6:.2f}" if size else "",
                   "AUC": spread(auc)}
            if several:
                row["95 %"] = f"[{auc.interval[0]:.1f}, {auc.interval[1]:.1f}]" if auc and auc.number > 1 else ""
            row |= {name: spread(self.score(label, name)) for name in SCORES}
            row |= {"ms": f"{times.median_ms:.1f}" if times else "-", "p95 ms": f"{times.p95_ms:.1f}" if times else "-",
                    "FPS": f"{1e3 / times.median_ms:.1f}" if times else "-"}
            if self.reference:
                row[f"of {self.reference}"] = f"{100 * auc.mean / whole.mean:.1f} %" if auc and whole else "-"
                row["AUC difference"] = interval(self.difference(label))
            rows.append(row)
        return rows

    def notes(self) -> list[str]:
        """What the numbers mean, a line each."""
        notes = [f"{self.test_set}; scores in per cent."]
        if self.times:
            least, most = (pick(times.frames for times in self.times.values()) for pick in (min, max))
            frames = str(least) if least == most else f"{least} to {most}"
            notes.append(f"ms: median over {frames} frames from image array to box, without reading; all trackers in "
                         f"turn on the same frames in one process; {self.machine}.")
        if self.reference:
            notes.append(f"AUC difference: to {self.reference}, mean over the sequences paired, with Student's 95 % "
                         "interval" + ("; the AUC itself is over all frames together." if self.pooled else "."))
        if any(len(runs) > 1 for runs in self.runs.values()):
            notes.append("AUC of several runs: mean +- standard deviation, and Student's 95 % interval of the mean.")
        return [*notes, "The AUC of a single run has no interval."]

    def table(self) -> str:
        """The table with its notes as text."""
        rows = self.rows()
        return "\n".join([*aligned([list(rows[0]), *(list(row.values()) for row in rows)], right=True), "",
                          *self.notes()])

    def csv(self) -> str:
        """One line per run, for programs; times are those of the label's first run."""
        rows = [{"tracker": label, "kind": run.title, "weights": run.made_with["checkpoint"]["file"],
                 **{name: round(value, 4) for name, value in record.scores.items()},
                 **({name: round(value, 4) for name, value in self.times[label]._asdict().items()}
                    if label in self.times else {})}
                for label, runs in self.runs.items() for run, record in runs]
        return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")

    def write(self, folder: Path) -> list[Path]:
        """Write table and, where frames were timed, the chart; gives the files."""
        texts = {"table.txt": self.table() + "\n",
                 "table.md": markdown(self.rows()) + "\n" + "".join(f"- {note}\n" for note in self.notes()),
                 "runs.csv": self.csv()}
        for name, text in texts.items():
            write_text(folder / name, text)
        points = {label: (self.times[label].median_ms, score) for label in self.runs
                  if label in self.times and (score := self.score(label))}
        charts = save_speed_chart(folder / "speed", self.test_set, "AUC", points) if points else []
        return [*(folder / name for name in texts), *charts]


def check_reference(runs: Sequence[Run], reference: str) -> None:
    """UserError where the reference is none of the labels; empty is none."""
    labels = list(dict.fromkeys(run.label for run in runs))
    if reference and reference not in labels:
        raise UserError(f"--reference {reference} is no label; there are {', '.join(labels)}")


def collect(runs: Sequence[Run], test_set: TestSet, output: Path, reference: str = "") -> Comparison:
    """The report of what is done.

    Raises:
        UserError: nothing is done.
    """
    done: dict[str, list[tuple[Run, ScoreRecord]]] = {run.label: [] for run in runs}
    for run in runs:
        record = run.record(test_set)
        if record is not None:
            done[run.label].append((run, record))
    if not any(done.values()):
        raise UserError(f"none of these trackers is done in {output}; leave --report out to track")
    times, machine = read_times(runs, output)
    sizes = {run.label: run.size() for run in reversed(runs)}    # of the first of each label
    title = f"{test_set.name}, {len(test_set.sequences)} sequences, convention {test_set.convention.name}"
    return Comparison(title, done, times, sizes, machine, reference, test_set.convention.pooled)
