"""Results of trackers: where they are, and how they are read.

A sequence is any object with `name`, `dataset`, `ground_truth` (N, 4) xywh (NaN where there is no target) and
`visible` (N,) bool or None. A source of results is any object with the members of `ResultSource`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from ...utils.errors import UserError
from ..evaluation import manifest
from ..evaluation.results import boxes_file, has_own_names, has_results, tracker_folder
from .names import match_names
from .textfiles import SUFFIXES, Rows, parse_boxes, parse_times, read_bytes

_NAMED = 4
"""How many names a message gives as examples."""


EXTERNAL_REMEDY = ("correct the file or get it whole from where these results come from, or score the other sequences "
                   "with --partial")
"""What to do about a result of another project that cannot be used."""


class Result(Protocol):
    """One tracker's predictions on one sequence, not yet interpreted."""

    where: str
    """For messages: the file, or the place in it."""

    def content(self) -> list[bytes | memoryview]:
        """All that scores depend on: what a cache has to know them by."""

    def rows(self) -> Rows:
        """The predictions as they are written; UserError where they cannot be read."""

    def times(self) -> np.ndarray | None:
        """Seconds per frame, (N,), or None when they were not recorded; UserError where they cannot be read."""


class ResultSource(Protocol):
    """One tracker's predictions on any number of sequences.

    Attributes:
        label: the tracker's name in tables and plots.
        form: of its boxes, one of `lib.utils.box_forms.FORMS`; None for x,y,w,h in pixels, which is then checked.
        mean_of: label of the tracker of which this is one of several runs; empty for one that stands for itself.
        remedy: what to do about a result that cannot be used, as a part of a sentence.
    """

    label: str
    form: str | None
    mean_of: str
    remedy: str

    def find(self, sequences: Sequence) -> list[Result | None]:
        """The predictions of each of a data set's sequences; None where there are none."""

    def has_any(self, sequences: Sequence) -> bool:
        """Whether there are predictions of any of the sequences under exactly its name."""

    def lacking(self, sequences: Sequence) -> str:
        """What to say where there are no predictions of any of the sequences: what was looked for, what is there."""


@dataclass(frozen=True)
class TextResult:
    """A result file, and the time file that may lie beside it."""

    file: Path
    times_file: Path
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """See `Result`."""
        return str(self.file)

    @cached_property
    def _data(self) -> bytes:
        return read_bytes(self.file)

    @cached_property
    def _seconds(self) -> bytes | None:
        return read_bytes(self.times_file) if self.times_file.is_file() else None

    def content(self) -> list[bytes | memoryview]:
        """See `Result`; for what cannot be read, the reason."""
        parts = [note.encode() for note in self.notes]
        for name in ("_data", "_seconds"):
            try:
                parts.append(getattr(self, name) or b"")
            except UserError as error:
                parts.append(str(error).encode())
        return parts

    def rows(self) -> Rows:
        """See `Result`; UserError with file and line when the file is damaged."""
        rows = parse_boxes(self._data, self.where)
        return rows._replace(notes=[*self.notes, *rows.notes])

    def times(self) -> np.ndarray | None:
        """See `Result`; UserError with file and line when the file is damaged."""
        return None if self._seconds is None else parse_times(self._seconds, str(self.times_file))


@dataclass(frozen=True)
class UnusableResult:
    """What is stored for a sequence and cannot be used."""

    where: str
    problem: str

    def content(self) -> list[bytes | memoryview]:
        """See `Result`."""
        return [self.problem.encode()]

    def rows(self) -> Rows:
        """Refuses."""
        raise UserError(self.problem)

    def times(self) -> None:
        """None."""


def ambiguous(where: str, stored: Sequence[str]) -> UnusableResult:
    """For a sequence for which several stored results could be meant."""
    return UnusableResult(where, f"{where}: {' and '.join(stored)} could both be meant; remove or rename all but one")


def find_results(source: ResultSource, sequences: Sequence) -> list[Result | None]:
    """`source.find`, with a reason for every sequence where the whole source cannot be read."""
    try:
        return source.find(sequences)
    except UserError as error:
        return [UnusableResult(source.label, str(error))] * len(sequences)


@dataclass
class ResultFolder:
    """A folder of result files `<sequence>.txt`, or `<sequence>/<sequence>_001.txt` as the GOT-10k toolkit and VOT's
    write them.

    Attributes:
        label, mean_of: see `ResultSource`.
        form: see there; where the folder has this project's manifest, x,y,w,h, which is what it writes.
        folder: where the files are; some data sets have their own sub-folder in it (`dataset_folder`).
        external: another project wrote them: every data set's files may be in `folder` itself too, may be .csv or .json
            files, and may have names in other forms (`match_names`).
    """

    label: str
    folder: Path
    external: bool = False
    form: str | None = None
    mean_of: str = ""

    def __post_init__(self):
        if self.form is None and manifest.is_own(self.folder):
            self.form = "xywh"

    @property
    def remedy(self) -> str:
        """See `ResultSource`."""
        if self.external:
            return EXTERNAL_REMEDY
        return "delete the file and run the tracker on this sequence again"

    def find(self, sequences: Sequence) -> list[Result | None]:
        """See `ResultSource`."""
        return self._find(sequences, not self.external)

    def has_any(self, sequences: Sequence) -> bool:
        """See `ResultSource`."""
        return any(self._find(sequences, exact=True))

    def locate(self, sequence) -> str | None:
        """The result file of a sequence, or None."""
        result = self.find([sequence])[0]
        return result and result.where

    def lacking(self, sequences: Sequence) -> str:
        """See `ResultSource`."""
        if not self.external:
            return f"no results of {self.label} in {self.folder}; run tracking/test.py on this data set first"
        return (f"no file of {self.label} is called like {some_names([s.name for s in sequences])}: looked in "
                f"{self.folder} for <sequence>{', '.join(SUFFIXES)} and <sequence>/<sequence>_001.txt, with other "
                f"separators (. - _) and case, with and without a benchmark's name before it. There are "
                f"{_inventory(self.folder)}. Name the folder that holds the files, or rename them")

    def _folders(self, dataset: str) -> Iterator[Path]:
        """Where files of a data set may lie."""
        own = boxes_file(self.folder, dataset, "x").parent
        yield own
        if own != self.folder and (self.external or has_own_names(dataset)):
            yield self.folder

    def _find(self, sequences: Sequence, exact: bool) -> list[Result | None]:
        dataset = sequences[0].dataset
        results: dict[str, Result] = {}
        for folder in self._folders(dataset):
            text_files, other_files = stored_results(folder)
            kinds = (text_files, other_files) if self.external else (text_files,)
            for stored, equal in [(kind, True) for kind in kinds] + [(kind, False) for kind in kinds if not exact]:
                missing = [sequence.name for sequence in sequences if sequence.name not in results]
                for name, stems in match_names(missing, stored, dataset, equal).items():
                    files = [file for stem in stems for file in stored.pop(stem)]
                    places = [str(file.relative_to(folder)) for file in files]
                    beside = [file.suffix for file in other_files.get(files[0].stem, ()) if self.external]
                    results[name] = (_open(files[0], beside) if len(files) == 1 else ambiguous(str(folder), places))
        return [results.get(sequence.name) for sequence in sequences]


def stored_results(folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Result files in a folder by the names that their sequences have there: text files, with those of the GOT-10k
    toolkit's and VOT's folders, and the other SUFFIXES. Whether they hold boxes is not looked at."""
    text_files: dict[str, list[Path]] = {}
    other_files: dict[str, list[Path]] = {}
    for path in _entries(folder):
        if path.suffix.lower() in SUFFIXES:
            (text_files if path.suffix.lower() == SUFFIXES[0] else other_files).setdefault(path.stem, []).append(path)
        elif (first := path / f"{path.name}_001.txt").is_file():
            text_files.setdefault(path.name, [first])
    return text_files, other_files


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing where there is none. UserError when it cannot be read."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _open(file: Path, beside: Sequence[str]) -> TextResult:
    """The result in a file, with its times and what to note about it: `beside` are the endings of files of its name
    that could be results too."""
    name = file.stem
    notes = (f"a {' and a '.join(beside)} file of the same name is left out",) if beside else ()
    if file.parent.name == name.removesuffix("_001") != name:  # of the GOT-10k toolkit or VOT's
        name = file.parent.name
        repeats = len(list(file.parent.glob(f"{name}_[0-9][0-9][0-9].txt")))
        notes += (f"the first of {repeats} repetitions is scored",) if repeats > 1 else ()
    return TextResult(file, file.with_name(f"{name}_time.txt"), notes)


def some_names(names: Sequence[str]) -> str:
    """Some names of many, for messages."""
    hidden_count = len(names) - _NAMED
    others = f" and {hidden_count} others" if hidden_count > 0 else ""
    return ", ".join(names[:_NAMED]) + others if names else "nothing"


def _inventory(folder: Path) -> str:
    """What is in a folder: numbers and examples of its files by ending, and of its folders."""
    kinds: dict[str, list[str]] = {}
    for path in _entries(folder):
        kinds.setdefault("folders" if path.is_dir() else f"{path.suffix or 'other'} files", []).append(path.name)
    return "; ".join(f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
                     for kind, names in kinds.items()) or "no files"


def external_folders(label: str, folder: Path) -> list[ResultFolder]:
    """The results of another project in a folder: one source, or one for each run where the folder holds runs
    (`atom_000`, `atom_001`, ... as PyTracking writes them), of which the mean is asked for under the label.

    Raises:
        UserError: the folder holds runs of several trackers.
    """
    own = {*stored_results(folder)[0]}
    runs = []
    for path in _entries(folder):
        if re.search(r"_\d{3,}$", path.name):
            stems = {stem for stored in stored_results(path) for stem in stored}
            if stems and not own & stems and not any(stem.startswith(path.name) for stem in stems):
                runs.append(path)
    trackers = Counter(path.name.rpartition("_")[0] for path in runs)
    if len(trackers) > 1:
        raise UserError(f"--result {label}={folder}: the folder holds runs of several trackers: {', '.join(trackers)}; "
                        f"name the folders of one at a time, such as {label}={runs[0]}")
    if not runs:
        return [ResultFolder(label, folder, external=True)]
    return [ResultFolder(f"{label}_{path.name.rpartition('_')[2]}", path, external=True, mean_of=label)
            for path in runs]


def find_trackers(results_path: str | Path) -> list[ResultFolder]:
    """Every `<results_path>/<script>/<config>` folder with result files in it, sorted by path.

    A label is the folder's name, with the script before it where two scripts share that name.
    """
    results_path = Path(results_path)
    if not results_path.is_dir():
        return []
    folders = [folder for folder in sorted(results_path.glob("*/*")) if folder.is_dir() and has_results(folder)]
    names = [folder.name for folder in folders]
    return [ResultFolder(f.name if names.count(f.name) == 1 else f"{f.parent.name}/{f.name}", f) for f in folders]


def parse_tracker(text: str, results_path: str | Path) -> ResultFolder:
    """A tracker from `script:config[:runid][=label]`.

    Raises:
        UserError: the text has another form, or there is no such folder (the message says what there is).
    """
    match = re.fullmatch(r"([^:=]+):([^:=]+)(?::(\d+))?(?:=(.+))?", text)
    if not match:
        raise UserError(f"--tracker {text}: expected script:config, script:config:runid or either with =label behind")
    script, config, run_id, label = match.groups()
    folder = tracker_folder(results_path, script, config, None if run_id is None else int(run_id))
    if not folder.is_dir():
        present = [f"{f.folder.parent.name}:{f.folder.name}" for f in find_trackers(results_path)]
        raise UserError(f"no results in {folder}; run tracking/test.py {script} {config} first. "
                        f"Found below {results_path}: {', '.join(present) or 'nothing'}")
    return ResultFolder(label or folder.name, folder)
