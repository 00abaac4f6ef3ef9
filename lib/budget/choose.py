"""Compression to a budget: measure teacher and device, search, and write the configuration of the best student."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from ..config import Config, changed_keys, config_from_dict, load_config, parse_override, schema_of
from ..deploy.crops import CropPair, crop_pairs, model_inputs, unlabelled_pairs
from ..families.build import build_teacher
from ..models.base import Inputs
from ..models.checkpoint import load_weights
from ..utils.errors import UserError
from ..utils.files import file_hash, write_text
from ..utils.machine import describe_environment
from ..utils.ownership import own
from ..utils.sequences import VIDEO_SUFFIXES
from ..utils.tables import aligned
from ..vis.charts import save_importance_chart
from .costs import FINE, Bench, KindCosts, Measured, Runtime, Timed
from .importance import Importance, measure_importance
from .options import RECIPE, SEARCHED
from .search import Budget, Found, search
from .space import Kind, describe, kind_of, kinds, overrides

logger = logging.getLogger(__name__)

T = TypeVar("T")
SHOWN, MOST_TIMED = 10, 30
"""Students in the table, all of which are timed; and how many are timed at most where those do not keep the budget."""
OWN_PARTS = ("STAGES", "INIT", "INIT_LAYERS", "HEAD_INIT", "FEAT_STAGES")
"""Keys of COMPRESS that belong to a student, not to a recipe."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        teacher: script and configuration of the teacher.
        checkpoint: its weights.
        output: folder of all that is made.
        budget: of the student.
        runtime: how it will run.
        varied: see `lib.budget.options.VARIED`.
        recipe: script/config of a compression whose TRAIN and COMPRESS sections are used, and its pairs per epoch.
        pairs: of crops of the runtime's frames, on which the importance of layers is measured; of made-up pictures
            where it has none.
        name: of the new configuration.
        settings: "KEY=VALUE" over all keys but those that the search decides on (`lib.budget.options.SEARCHED`).
    """

    teacher: tuple[str, str]
    checkpoint: Path
    output: Path
    budget: Budget
    runtime: Runtime
    varied: Sequence[str]
    recipe: str
    pairs: int
    name: str
    settings: Sequence[str] = ()


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        config: the yaml file that was written.
        found: the student, with the prediction for the speed that the machine had while it was timed.
        timed: with random weights.
        table: the best students, as text.
        files: everything that was written.
    """

    config: Path
    found: Found
    timed: Timed
    table: str
    files: list[Path]


def name_of(teacher: str, budget: Budget) -> str:
    """A name for the configuration of a student; `teacher` is its teacher's, or the path of that one's file."""
    limits = budget.text().replace(" parameters", "").replace(",", "").replace(" ", "_")
    return f"{Path(teacher).name.removesuffix('.yaml')}_{limits}"


def choose_student(request: Request) -> Choice:
    """Measure the teacher and the device, search, and write the configuration of the best student.

    What was measured before, with the same teacher, frames and device, is read again.

    Raises:
        UserError: see the parts; in particular none fits the budget.
    """
    output = request.output
    with own(output):
        base = compression_of(request)
        depth, asked = base.shape.depth, request.budget.layers
        if asked is not None and asked > depth:
            raise UserError(f"a student of {asked} layers was asked for, but the teacher has {depth}")
        importance = _importance(request, base)
        files = save_importance_chart(output / "importance", importance.influence, importance.skipped,
                                      importance.similarity)
        bench = Bench(base, request.runtime)
        measured, found = _search(request, base, bench, importance)
        costs = measured.at_the_end()
        logger.info("%d of the students looked at fit %s; timing the best %d", len(found), request.budget.text(),
                    min(SHOWN, len(found)))
        found, times = _timed(request, base, bench, found, measured.ended_ms)
        chosen = _choose(found, times, request.budget)
        shown = found[:SHOWN] if chosen in found[:SHOWN] else [*found[:SHOWN], chosen]
        table = students_table(shown, times, kind_of(base), chosen, narrows=base.family.narrows(base))
        config = output / f"{base.name}.yaml"
        write_text(config, _yaml(request, base, chosen, times[chosen].ms))
        write_text(output / "students.txt", table + "\n")
        write_text(output / "costs.txt", costs_table(costs, kind_of(base)) + "\n")
        write_text(output / "search.json", json.dumps({
            "budget": request.budget._asdict(), "runtime": _runtime_facts(request.runtime),
            "importance": importance._asdict(), "students": [
                {**one.candidate.kind._asdict(), "stages": one.candidate.stages, "predicted": one.cost._asdict(),
                 "measured_ms": times[one].ms, "expected_share": one.kept, "chosen": one is chosen}
                for one in shown]}, indent=1) + "\n")
    return Choice(config, chosen, times[chosen], table,
                  [config, *(output / name for name in ("students.txt", "costs.txt", "search.json")), *files])


def compression_of(request: Request) -> Config:
    """The compression of the teacher by the recipe, with the teacher's data sets and sizes; its student is not yet
    chosen.

    Raises:
        UserError: the two do not go together.
    """
    teacher = load_config(*request.teacher)
    script, _, name = request.recipe.partition("/")
    recipe = load_config(script, name)
    if teacher.compresses:
        raise UserError(f"{teacher.script}/{teacher.name} is a compression, not a teacher; name the teacher's own "
                        "configuration, such as ostrack/vitb_256_mae_32x4_ep300")
    if not recipe.compresses:
        raise UserError(f"--recipe {request.recipe} is no compression; expected one such as {RECIPE}")
    if not request.checkpoint.is_file():
        raise UserError(f"the teacher's checkpoint {request.checkpoint} does not exist")
    settings = dict(map(parse_override, request.settings))
    decided = next((key for key in settings if key.startswith(SEARCHED)), None)
    if decided is not None:
        raise UserError(f"--set {decided}: this key is decided by the search, or by another option; leave it out, or "
                        "change the configuration that is written")
    schema, taken, trained = schema_of(teacher.family.name), teacher.to_dict(), recipe.to_dict()
    tree: dict[str, Any] = {part: taken[part] for part in ("MODEL", "DATA", "TEST")}
    for part, left_out in (("TRAIN", ()), ("COMPRESS", OWN_PARTS)):
        tree[part] = {key: value for key, value in trained[part].items()
                      if key not in left_out and (isinstance(value, dict) or f"{part}.{key}" in schema)}
    for part in ("TRAIN", "VAL"):
        _set(tree, f"DATA.{part}.SAMPLE_PER_EPOCH", trained["DATA"][part]["SAMPLE_PER_EPOCH"])
    for key, value in {**teacher.family.as_teacher(teacher), "MODEL.BACKBONE.DISTILL_LAYER": 1,
                       "MODEL.PRETRAIN_FILE": str(request.checkpoint.absolute()), "TEST.CHECKPOINT": ""}.items():
        _set(tree, key, value)
    try:
        base = config_from_dict("compresstracker", request.name, tree, teacher.source)
    except UserError as error:
        raise UserError(f"the recipe {request.recipe} does not go with the teacher {'/'.join(request.teacher)}: {error}"
                        ) from error
    base = base.with_overrides(settings)
    return base if "TEST.EPOCH" in settings else base.with_overrides({"TEST.EPOCH": base.TRAIN.EPOCH})


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested dictionaries; sections that are missing are made."""
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[last] = value


def _importance(request: Request, base: Config) -> Importance:
    """Measured, or read where it was measured before."""
    path = request.output / "importance.json"
    made_with = {"checkpoint": file_hash(request.checkpoint), "frames": _look(request.runtime.frames),
                 "pairs": request.pairs, "model": _model_keys(base)}
    known = _read(path, made_with, lambda value: Importance(**value))
    if known is not None:
        return known
    teacher = build_teacher(base)
    load_weights(teacher, request.checkpoint, role="teacher")
    device = request.runtime.device
    batches = [Inputs.of(*(part.to(device) for part in inputs[:2]),
                         {key: value.to(device) for key, value in inputs[2].items()})
               for inputs in (model_inputs(pair, base, take_pixels=False) for pair in _pairs(request, base))]
    logger.info("measuring the importance of the teacher's %d layers on %d pairs of crops", teacher.depth,
                len(batches))
    importance = measure_importance(teacher.to(device), batches)
    _write(path, made_with, importance._asdict())
    return importance


def _pairs(request: Request, base: Config) -> list[CropPair]:
    """Of the user's frames: sequences with boxes, or a video or pictures without."""
    frames, number = request.runtime.frames, request.pairs
    if frames is None:
        logger.warning("no --frames: the importance of layers is measured on made-up pictures, which says little of "
                       "yours")
        return crop_pairs(None, number, base)
    if Path(frames).suffix.lower() in VIDEO_SUFFIXES:
        return unlabelled_pairs(Path(frames), number, base)
    try:
        return crop_pairs(frames, number, base)
    except UserError as no_sequences:
        try:
            return unlabelled_pairs(Path(frames), number, base)
        except UserError as no_frames:
            raise UserError(f"--frames {frames} holds neither frames ({no_frames}) nor sequences with boxes "
                            f"({no_sequences})") from no_sequences


def _look(frames: str | None) -> list[Any] | None:
    """What shows that frames are others than before: their place, and size and time of the file or folder."""
    if frames is None:
        return None
    path = Path(frames.rpartition("@")[0] if "@" in frames and not Path(frames).exists() else frames).absolute()
    state = path.stat() if path.exists() else None
    return [frames, str(path), state and state.st_size, state and state.st_mtime_ns]


def _search(request: Request, base: Config, bench: Bench, importance: Importance) -> tuple[Measured, list[Found]]:
    """The costs of the parts of all kinds, measured as far as they are not known; and the students that fit the budget.

    Of many kinds that are measured roughly the fastest are mostly those whose times came out too low. So the kinds of
    the best students are measured finely, and it is searched again, until all of the best are of such kinds.
    """
    path, made_with = request.output / "costs.json", _measured_with(request, base)
    measured = _read(path, made_with, Measured.of) or Measured()
    looked_at = list(kinds(base, request.varied))

    def keep(costs: Measured) -> None:
        _write(path, made_with, costs.to_dict())

    measured = bench.measure_costs(looked_at, measured, keep)
    while True:
        found = search(looked_at, measured.at_the_end(), kind_of(base), importance.skipped,
                       base.MODEL.BACKBONE.STRIDE, request.budget)
        best = [one.candidate.kind for one in found[:SHOWN]]
        if all(measured.kinds[kind].effort == FINE for kind in best):
            return measured, found
        measured = bench.measure_costs(best, measured, keep, FINE)


def _measured_with(request: Request, base: Config) -> dict[str, Any]:
    """What the times in a file belong to."""
    return {**_runtime_facts(request.runtime), "model": _model_keys(base)}


def _model_keys(base: Config) -> dict[str, Any]:
    """The settings that a student's costs, or a teacher's crops, depend on."""
    sections = ("MODEL.", "TEST.", "DATA.SEARCH.", "DATA.TEMPLATE.", "DATA.MEAN", "DATA.STD")
    without = ("MODEL.PRETRAIN_FILE", "MODEL.BACKBONE.PRETRAIN_FILE", "TEST.EPOCH")
    return {key: value for key, value in base.flat().items() if key.startswith(sections) and key not in without}


def _runtime_facts(runtime: Runtime) -> dict[str, Any]:
    """What a time depends on."""
    facts = describe_environment(runtime.device)
    return {"backend": runtime.backend, "precision": runtime.precision,
            **{name: facts[name] for name in ("device", "device_name", "libraries")},
            "threads": runtime.threads or facts["threads"]}


def _timed(request: Request, base: Config, bench: Bench, found: Sequence[Found], reference_ms: float
           ) -> tuple[list[Found], dict[Found, Timed]]:
    """Time the best students, and more of them as long as none is within the budget. What was timed before is not timed
    again: the same command makes the same choice.

    Args:
        reference_ms: of a pass of the reference at the speed of the predictions.

    Returns:
        The students, those that were timed with the prediction for the speed that the machine had meanwhile; and what
        they take.
    """
    path, made_with = request.output / "times.json", _measured_with(request, base)
    known = _read(path, made_with, lambda value: {name: Timed(*pair) for name, pair in value.items()}) or {}
    found, times = list(found), {}
    for first in range(0, min(len(found), MOST_TIMED), SHOWN):
        names = [json.dumps(one.candidate.to_list()) for one in found[first:first + SHOWN]]
        new = {name: one.candidate for name, one in zip(names, found[first:], strict=False) if name not in known}
        if new:
            known |= bench.time_students(new)
            _write(path, made_with, known)
        for index, name in enumerate(names, first):
            now = found[index].cost.slowed(known[name].reference_ms / reference_ms)
            found[index] = found[index]._replace(cost=now)
            times[found[index]] = known[name]
        if any(_fits(one, timed.ms, request.budget) for one, timed in times.items()):
            break
    return found, times


def _fits(one: Found, measured_ms: float, budget: Budget) -> bool:
    return budget.used(one.cost._replace(ms=measured_ms)) <= 1


def _choose(found: Sequence[Found], times: Mapping[Found, Timed], budget: Budget) -> Found:
    """The most promising student whose measured time fits.

    Raises:
        UserError: none of those that were timed does.
    """
    for one in found:
        if one in times and _fits(one, times[one].ms, budget):
            return one
    nearest = min(times, key=lambda one: times[one].ms)
    raise UserError(f"of the {len(times)} best students none is within {budget.text()} when it is timed; the fastest "
                    f"takes {times[nearest].ms:.1f} ms where {nearest.cost.ms:.1f} were predicted. Is the machine "
                    "busy? Stop what else runs, or allow more")


def students_table(found: Sequence[Found], times: Mapping[Found, Timed], teacher: Kind, chosen: Found, *,
                   narrows: bool) -> str:
    """The table of students as text.

    Args:
        narrows: narrower students start from their teacher's weights.
    """
    rows = [("", "layers", "stages", "kind", "predicted ms", "measured ms", "MACs G", "params M", "expected share")]
    for one in found:
        rows.append(("*" if one is chosen else "", str(one.candidate.layers), "-".join(map(str, one.candidate.stages)),
                     describe(one.candidate.kind, teacher), f"{one.cost.ms:.1f}", f"{times[one].ms:.1f}",
                     f"{one.cost.macs / 1e9:.3g}", f"{one.cost.parameters / 1e6:.2f}", f"{100 * one.kept:.1f} %"))
    notes = ["*: chosen. The expected share of the teacher's accuracy is a rough proxy made of other trackers "
             "(docs/budget.md), not a measurement."]
    if not narrows and any(one.candidate.kind.width != teacher.width for one in found):
        notes.append("Students of another width start from random weights and need longer training to keep that much; "
                     "--vary mlp tokens resolution leaves them out.")
    return "\n".join([*aligned(rows), "", *notes])


def costs_table(costs: Mapping[Kind, KindCosts], teacher: Kind) -> str:
    """The costs of the parts as text."""
    rows = [("kind", "embedding ms", "layer ms", "head ms", "eliminating ms", "layer MACs G", "layer params M")]
    for kind, parts in costs.items():
        ends = [""] * 2
        if parts.fixed is not None:
            ends = [f"{share * parts.fixed.ms:.2f}" for share in (parts.embedding_share, 1 - parts.embedding_share)]
        rows.append((describe(kind, teacher), ends[0], f"{parts.layer.ms:.2f}", ends[1],
                     "" if parts.eliminating is None else f"{parts.eliminating.ms:.2f}",
                     f"{parts.layer.macs / 1e9:.3f}", f"{parts.layer.parameters / 1e6:.3f}"))
    return "\n".join(aligned(rows))


def _yaml(request: Request, base: Config, chosen: Found, measured_ms: float) -> str:
    """The configuration of a student: only what differs from the defaults."""
    candidate = chosen.candidate
    cfg = base.with_overrides(overrides(base, candidate.kind, candidate.layers, candidate.stages))
    tree = {"MODEL": {"FAMILY": cfg.family.name}}
    for key, _, value in changed_keys({}, cfg.flat()):
        _set(tree, key, value)
    runtime = request.runtime
    head = (f"# {candidate.layers} layers, {describe(candidate.kind, kind_of(base))}, from the {base.shape.depth} of "
            f"{'/'.join(request.teacher)}, for {request.budget.text()}.\n"
            f"# {runtime.backend} {runtime.precision} on {runtime.device}: {chosen.cost.ms:.1f} ms predicted, "
            f"{measured_ms:.1f} measured. Training by {request.recipe}.\n")
    return head + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=120)


def _read(path: Path, made_with: Mapping[str, Any], make: Callable[[Any], T]) -> T | None:
    """What is made of the value that `_write` kept, if it was made with the same; else None."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return make(content["value"]) if content["made_with"] == json.loads(json.dumps(made_with)) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, and it is measured again") from error


def _write(path: Path, made_with: Mapping[str, Any], value: Any) -> None:
    write_text(path, json.dumps({"made_with": made_with, "value": value}, indent=1) + "\n")
