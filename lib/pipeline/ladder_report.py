"""What a ladder of ablations gave: a table, one line for each run, and a chart."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..utils.errors import UserError
from ..utils.files import write_text
from ..utils.statistics import Summary, summarise
from ..utils.tables import aligned, interval, markdown, spread
from ..vis.charts import save_ladder_chart
from .ladder import Ladder, LadderRun, ReferenceRun
from .scoring import ScoreRecord, TestSet


@dataclass
class LadderReport:
    """What a ladder gave.

    Attributes:
        ladder: it.
        records: rung -> seed -> what that run gave, of those that are done.
        reference: scores of the reference tracker; None for none.
    """

    ladder: Ladder
    records: dict[str, dict[int, ScoreRecord]]
    reference: dict[str, float] | None = None

    def score(self, rung: str) -> Summary | None:
        """Of a rung over its seeds; None where no run is done."""
        values = [record.scores[self.ladder.score] for record in self.records[rung].values()]
        return summarise(values) if values else None

    def gain(self, rung: str) -> Summary | None:
        """The differences to the rung that this one is compared with, over the seeds that both have; None for none."""
        before = self.ladder.before(rung)
        if before is None:
            return None
        name, own, others = self.ladder.score, self.records[rung], self.records[before]
        values = [own[seed].scores[name] - others[seed].scores[name] for seed in sorted(own.keys() & others.keys())]
        return summarise(values) if values else None

    def rows(self) -> list[dict[str, str]]:
        """The table's rows: a text for each column."""
        rows, name = [], self.ladder.score
        against = "to the rung before" if self.ladder.compare == "previous" else f"to {next(iter(self.ladder.rungs))}"
        share = {} if self.reference is None else {"of the reference": "100 %"}
        if self.reference is not None:
            rows.append({"rung": self.ladder.reference, "runs": "", name: f"{self.reference[name]:.1f}", against: "",
                         **share})
        for rung in self.ladder.rungs:
            score, gain = self.score(rung), self.gain(rung)
            if share:
                share = {"of the reference": f"{100 * score.mean / self.reference[name]:.1f} %" if score else ""}
            rows.append({"rung": rung, "runs": str(score.number if score else 0), name: spread(score),
                         against: interval(gain), **share})
        return rows

    def table(self) -> str:
        """The table as text."""
        rows = self.rows()
        return "\n".join(aligned([list(rows[0]), *(list(row.values()) for row in rows)], right=True))

    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown(self.rows())

    def csv(self) -> str:
        """One line per run, for programs."""
        rows = [{"rung": rung, "seed": seed, **{name: round(value, 4) for name, value in record.scores.items()},
                 **{f"{part}_s": round(seconds, 1) for part, seconds in record.seconds.items()}}
                for rung, records in self.records.items() for seed, record in sorted(records.items())]
        return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")

    def write(self, folder: Path) -> list[Path]:
        """Write table and plots; gives the files."""
        texts = {"table.txt": self.table() + "\n", "table.md": self.markdown(), "runs.csv": self.csv()}
        for name, text in texts.items():
            write_text(folder / name, text)
        scores = {rung: [record.scores[self.ladder.score] for record in records.values()]
                  for rung, records in self.records.items()}
        reference = None if self.reference is None else self.reference[self.ladder.score]
        charts = save_ladder_chart(folder / "ladder", self.ladder.name, self.ladder.score, scores,
                                   {rung: self.gain(rung) for rung in self.ladder.rungs}, reference)
        return [*(folder / name for name in texts), *charts]


def collect(ladder: Ladder, output: Path, device: str = "auto") -> LadderReport:
    """The report of what is done.

    Raises:
        UserError: nothing is done, or the reference cannot be tested.
    """
    test_set = TestSet(ladder.dataset, ladder.convention)
    records: dict[str, dict[int, ScoreRecord]] = {rung: {} for rung in ladder.rungs}
    for rung, seed in ladder.runs():
        record = LadderRun(ladder, output, rung, seed, test_set).record()
        if record is not None:
            records[rung][seed] = record
    if not any(records.values()):
        raise UserError(f"no run of {ladder.name} is done in {output}")
    reference = ReferenceRun(ladder, output, test_set).execute(device).scores if ladder.reference else None
    return LadderReport(ladder, records, reference)
