"""Test sets by name: benchmarks, plain folders of sequences and folders in VOT's layout."""

from pathlib import Path
from typing import Any

from ...utils.errors import UserError
from ...utils.files import resolve
from ...utils.sequences import find_in_spec
from .benchmarks import BENCHMARKS, OBJECT_FILES, Benchmark, benchmark_key, one_object, vot_benchmark
from .sequence import Sequence

__all__ = ["BENCHMARKS", "Benchmark", "Sequence", "get_dataset"]


def get_dataset(name: str, env: Any, sequence: str | int | None = None, base: Path | None = None) -> list[Sequence]:
    """The sequences of a test set.

    Args:
        name: a benchmark (the keys of `BENCHMARKS`, lasot for instance, or one of their other names, in any case);
            `folder:<path>[@<file with names>]` for any folder of sequences (see `lib.utils.sequences`); or
            `vot:<path>` for a folder in VOT's layout or a workspace of its toolkit.
        env: environment settings with the folders of the benchmarks (`lasot_path`, ...).
        sequence: only this one, by name or by number (from 0).
        base: what relative paths of `folder:` and `vot:` start from; None is the working directory.

    Raises:
        UserError: unknown name, missing folder, no such sequence, or a sequence that is not whole.
    """
    kind, _, place = name.partition(":")
    if kind.lower() == "folder" and place:
        return _folder(place, sequence, base or Path.cwd())
    if kind.lower() == "vot" and place:
        return _vot(place, sequence, base or Path.cwd())
    benchmark = BENCHMARKS.get(benchmark_key(name))
    if benchmark is None:
        raise UserError(f"unknown data set {name!r}; choose {', '.join(BENCHMARKS)}, folder:<path> or vot:<path>")
    path = getattr(env, benchmark.field, "")
    root = resolve(path) if path else None
    if root is None or not root.is_dir():
        raise UserError(f"data set {name} ({benchmark.title}) not found: {benchmark.field} is {str(path)!r}; "
                        f"{_remedy(benchmark)}, and set {benchmark.field} in lib/test/evaluation/local.py or "
                        f"COMPRESSTRACKER_{benchmark.field.upper()} to that folder")
    return _read(benchmark, name, root, sequence)


def _read(benchmark: Benchmark, name: str, root: Path, sequence: str | int | None) -> list[Sequence]:
    try:
        names = benchmark.names(root)
    except FileNotFoundError as error:
        raise UserError(f"data set {name} is not whole: no {error.filename}; {_remedy(benchmark, root)}") from error
    if not names:
        raise UserError(f"data set {name} has no sequence in {root}; {_remedy(benchmark, root)}")
    return benchmark.read(root, _pick(names, sequence, name))


def _remedy(benchmark: Benchmark, root: Path | None = None) -> str:
    if benchmark.download:
        return f"get it from {benchmark.download}, unpack it so that a folder holds {benchmark.layout}"
    objects = next(root.glob(f"*/{OBJECT_FILES}"), None) if root else None
    return f"expected {benchmark.layout}{f'; {one_object(objects)}' if objects else ''}"


def _vot(place: str, sequence: str | int | None, base: Path) -> list[Sequence]:
    folder = resolve(place, base)
    if not folder.is_dir():
        raise UserError(f"folder of VOT sequences not found: {folder}")
    benchmark = vot_benchmark(f"vot:{folder.resolve().name}")
    inner = folder / "sequences"  # where the VOT toolkit's workspaces keep them
    return _read(benchmark, f"vot:{place}", inner if inner.is_dir() else folder, sequence)


def _folder(spec: str, sequence: str | int | None, base: Path) -> list[Sequence]:
    sequences = {files.name: files for files in find_in_spec(spec, base)}
    folder = resolve(spec, base)
    if not folder.is_dir():
        folder = resolve(spec.rpartition("@")[0], base)
    dataset = f"folder:{folder.resolve().name}"
    chosen = (sequences[name] for name in _pick(list(sequences), sequence, f"folder:{spec}"))
    return [Sequence(files.name, dataset, files.frames, files.boxes, files.visible, box_file=files.box_file)
            for files in chosen]


def _pick(names: list[str], sequence: str | int | None, dataset: str) -> list[str]:
    """All names, or the one that `sequence` means. A name goes before a number, for sequences that are called 7."""
    if sequence is None:
        return names
    if str(sequence) in names:
        return [str(sequence)]
    try:
        return [names[int(sequence)]]
    except (ValueError, IndexError):
        raise UserError(f"{dataset} has no sequence {sequence!r}; give a name such as {names[0]!r} or a number from 0 "
                        f"to {len(names) - 1}") from None
