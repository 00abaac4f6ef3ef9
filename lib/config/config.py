"""Load, override, check and save configurations."""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..families import FAMILIES, Family, get_family
from ..families.base import Shape
from ..utils.errors import UserError
from ..utils.files import ROOT, write_text
from .checks import check_combinations
from .schema import Schema, schema_of
from .values import checked, unknown_key

logger = logging.getLogger(__name__)

EXPERIMENTS = ROOT / "experiments"
FAMILY = "MODEL.FAMILY"
STUDENT = "STUDENT."
"""How the keys begin that are laid over the others for the student."""
COMPRESSION = "compresstracker"
"""The script that compresses a tracker of any family."""

SCRIPTS = (*FAMILIES, COMPRESSION)


class Section:
    """A read-only group of values and sub-sections, read as attributes. Lists are tuples."""

    def __init__(self, values: Mapping[str, Any]):
        vars(self).update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a configuration cannot be changed; use with_overrides to get another one ({name})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a configuration cannot be changed ({name})")

    def __getattr__(self, name: str) -> Any:
        near = difflib.get_close_matches(name, vars(self), n=1)
        raise AttributeError(f"no configuration key {name}" + (f"; did you mean {near[0]}?" if near else ""))

    def __reduce__(self):
        return type(self), (vars(self).copy(),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Section) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.to_dict()!r})"

    def to_dict(self) -> dict[str, Any]:
        """A copy as plain dictionaries and lists."""
        return {name: _plain(value) for name, value in vars(self).items()}


class Config(Section):
    """A checked configuration: the sections of the schema as attributes, e.g. ``cfg.TRAIN.BATCH_SIZE``.

    Attributes:
        script: one of `SCRIPTS`.
        name: the yaml file's name without ".yaml"; names the run's folders.
        source: the yaml file.
        overrides: dotted names of the keys that were set after the file.
    """

    def __init__(self, script: str, name: str, source: Path, values: Mapping[str, Any],
                 overrides: Sequence[str] = (), of_student: bool = False):
        """Check `values` (dotted name -> checked value, all keys) as a whole; `UserError` when they do not fit."""
        sections = sorted({name.partition(".")[0] for name in values})
        super().__init__({section: _tree(values, section) for section in sections})
        vars(self).update(_head=(script, name, source, tuple(overrides), of_student), _values=dict(values),
                          _student=None)
        check_combinations(self)

    @property
    def script(self) -> str:
        """The script whose experiment this is."""
        return self._head[0]

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self._head[1]

    @property
    def source(self) -> Path:
        """The yaml file it comes from."""
        return self._head[2]

    @property
    def overrides(self) -> tuple[str, ...]:
        """Dotted names of the keys that were set after the file."""
        return self._head[3]

    @property
    def of_student(self) -> bool:
        """Whether it is the `student` of a configuration."""
        return self._head[4]

    @property
    def compresses(self) -> bool:
        """Whether a teacher is compressed; else it describes one tracker."""
        return self.script == COMPRESSION and not self.of_student

    @property
    def family(self) -> Family:
        """The tracker's family."""
        return get_family(self.MODEL.FAMILY)

    @property
    def shape(self) -> Shape:
        """The shape of the (teacher's) layers."""
        return self.family.shape(self)

    @property
    def student(self) -> "Config":
        """The configuration of the student as a tracker of its own, with its depth and the STUDENT section laid over
        the other keys; that of the tracker itself where nothing is compressed.

        Test, export and profile of a model take sizes and rules from this one.

        Raises:
            UserError: an impossible student.
        """
        if not self.compresses:
            return self
        if self._student is None:
            vars(self)["_student"] = self._make_student()
        return self._student

    def _make_student(self) -> "Config":
        laid = {name: value for name, value in self._values.items() if name.startswith(STUDENT) and value}
        over = {name.removeprefix(STUDENT): value for name, value in laid.items()}
        over["MODEL.BACKBONE.DEPTH"] = self.MODEL.BACKBONE.DISTILL_LAYER
        for part in ("SEARCH", "TEMPLATE"):     # training and test of one model have one size
            if f"DATA.{part}.SIZE" in over:
                over[f"TEST.{part}_SIZE"] = over[f"DATA.{part}.SIZE"]
        if "MODEL.BACKBONE.TYPE" in over:   # the shape is that of the TYPE, unless the section says more
            shape = ("EMBED_DIM", "NUM_HEADS", "MLP_RATIO")
            over = dict.fromkeys((f"MODEL.BACKBONE.{name}" for name in shape), 0) | over
        schema, values = schema_of(self.MODEL.FAMILY), dict(self._values)
        values |= {name: schema[name].default for name in laid}
        values |= {name: _override(schema, name, value) for name, value in over.items()}
        script, name, source, overrides, _ = self._head
        return Config(script, name, source, values, overrides, of_student=True)

    @property
    def teacher(self) -> "Config":
        """The same with the search crop that the teacher's weights were trained with, where that shows more than the
        training's (COMPRESS.TEACHER_FACTOR); else itself."""
        search, factor = self.DATA.SEARCH, self.COMPRESS.TEACHER_FACTOR
        if not self.compresses or factor in (0, search.FACTOR):
            return self
        side = round(search.SIZE * factor / search.FACTOR)
        return self.with_overrides({"DATA.SEARCH.FACTOR": factor, "DATA.SEARCH.SIZE": side,
                                    "TEST.SEARCH_FACTOR": factor, "TEST.SEARCH_SIZE": side})

    @property
    def title(self) -> str:
        """What the trained model is called, in the names of its checkpoints too."""
        return "CompressTracker" if self.script == COMPRESSION else self.family.title

    def origin(self) -> str:
        """Where the values come from, for messages."""
        return (_shown(self.source) + (f" with {', '.join(self.overrides)} overridden" if self.overrides else "")
                + ", of the student" * self.of_student)

    def __reduce__(self):
        script, name, source, overrides, of_student = self._head
        return Config, (script, name, source, self._values, overrides, of_student)

    def to_dict(self) -> dict[str, Any]:
        """All keys as nested plain dictionaries and lists (without script, name and source)."""
        return {name: _plain(value) for name, value in vars(self).items() if not name.startswith("_")}

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value of all keys, with plain lists."""
        return {name: _plain(value) for name, value in self._values.items()}

    def with_overrides(self, overrides: Mapping[str, Any]) -> "Config":
        """Another configuration with some keys set, e.g. ``{"TRAIN.EPOCH": 3}``; checked like a file.

        Raises:
            UserError: an unknown key, a wrong value or an impossible combination.
        """
        schema, values = schema_of(self.MODEL.FAMILY), dict(self._values)
        overrides = {schema.canonical(name): value for name, value in overrides.items()}
        for name, value in overrides.items():
            values[name] = _override(schema, name, value)
        return Config(self.script, self.name, self.source, values, [*dict.fromkeys([*self.overrides, *overrides])],
                      self.of_student)

    def save(self, path: str | Path) -> None:
        """Write all keys as a yaml file that `load_config` reads back to the same values."""
        head = f"# Resolved configuration of {self.script}/{self.name} ({self.origin()})\n"
        write_text(path, head + yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=120))


def load_config(script: str, name: str, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment.

    Args:
        script: one of `SCRIPTS`.
        name: experiments/<script>/<name>.yaml, or the path of a file that ends in .yaml or .yml (relative to the
            working directory, else to the repository root).
        overrides: "KEY=VALUE" texts such as "TRAIN.BATCH_SIZE=16"; the value is read as yaml.

    Raises:
        UserError: no such experiment, a broken file, an unknown key, a wrong value or an impossible combination.
    """
    if script not in SCRIPTS:
        raise UserError(f"unknown script {script!r}; choose one of {', '.join(SCRIPTS)}")
    source = _find(script, name)
    changes = dict(parse_override(text) for text in overrides)
    schema, values = _complete(script, read_yaml(source), source, changes.get(FAMILY))
    changes = {schema.canonical(key): value for key, value in changes.items()}
    values.update({key: _override(schema, key, value) for key, value in changes.items() if key != FAMILY})
    return Config(script, source.stem, source, values, list(changes))


def config_from_dict(script: str, name: str, tree: Mapping[str, Any], source: str | Path) -> Config:
    """The configuration that `Config.to_dict` turned into `tree`, checked again; missing keys take their defaults.

    Args:
        script, name: of the configuration.
        source: the file that holds it.

    Raises:
        UserError: an unknown script or key, a wrong value or an impossible combination.
    """
    if script not in SCRIPTS:
        raise UserError(f"{source} holds a configuration of the unknown script {script!r}; expected one of "
                        f"{', '.join(SCRIPTS)}")
    source = Path(source)
    return Config(script, name, source, _complete(script, tree, source)[1])


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key, value before, value now), lists for tuples, of the keys in which two sets of settings differ, sorted. A key
    that one of them does not have had its default.

    Args:
        before, now: dotted name -> value, as `Config.flat` gives them or JSON gives them back.
    """
    schema = schema_of(now["MODEL.FAMILY"]) if "MODEL.FAMILY" in now else {}    # else no tracker of this project
    for key in sorted({*before, *now}):
        default = schema[key].default if key in schema else None
        old, new = (_plain(settings.get(key, default)) for settings in (before, now))
        if old != new:
            yield key, old, new


def list_configs(script: str) -> list[str]:
    """Names of the experiments of a script, sorted."""
    return sorted(path.stem for path in (EXPERIMENTS / script).glob("*.yaml"))


def _find(script: str, name: str) -> Path:
    """The yaml file of an experiment's name or path."""
    if name.endswith((".yaml", ".yml")):
        for base in (Path.cwd(), ROOT):
            path = base / Path(name).expanduser()
            if path.is_file():
                return path
        raise UserError(f"configuration file not found: {name} (looked in {Path.cwd()} and {ROOT})")
    path = EXPERIMENTS / script / f"{name}.yaml"
    if path.is_file():
        return path
    configs = list_configs(script)
    near = difflib.get_close_matches(name, configs, n=1)
    owners = [owner for owner in SCRIPTS if owner != script and name in list_configs(owner)]
    if owners:
        hint = f"{name} belongs to script {owners[0]}"
    else:
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(configs) or '(none there)'}"
    raise UserError(f"no configuration {name!r} for script {script} ({_shown(path)} not found); {hint}")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that says when a key is written twice. As in PyYAML, the last one counts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            earlier = seen.get(key.value) if isinstance(key, yaml.ScalarNode) else None
            if earlier is not None and earlier.tag != "tag:yaml.org,2002:null":
                logger.warning("%s, line %d: %s is written twice; the last one counts", self.name,
                               key.start_mark.line + 1, key.value)
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = value
        return super().construct_mapping(node, deep)


def read_yaml(source: Path) -> Any:
    """The content of a yaml file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(source, encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{_shown(source)} is not valid yaml: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {_shown(source)}: {error.strerror or error}") from error


def _complete(script: str, tree: Any, source: Path, family: Any = None) -> tuple[Schema, dict[str, Any]]:
    """The schema, and dotted name -> checked value of all keys: those of `tree`, which stands in `source`, over the
    defaults; `family` comes before the one that `tree` names."""
    own = script if script in FAMILIES else FAMILIES[0]
    model = tree.get("MODEL") if isinstance(tree, dict) else None
    stated = family or (model.get("FAMILY") if isinstance(model, dict) else None) or own
    name = checked(schema_of(own), FAMILY, stated, "override" if family else _shown(source))
    if script in FAMILIES and name != script:
        raise UserError(f"{_shown(source)}: {FAMILY} is {name}, but script {script} trains {script}; use script {name} "
                        f"or {COMPRESSION}")
    schema = schema_of(name)
    values = {key: spec.default for key, spec in schema.items()}
    written: dict[str, str] = {}
    for stated_as, value in _flatten(schema, tree, _shown(source)):
        key = schema.canonical(stated_as)
        if key in written:
            raise UserError(f"{_shown(source)}: {written[key]} and {stated_as} are the same key; keep one of them")
        written[key] = stated_as
        values[key] = checked(schema, key, value, _shown(source))
    values[FAMILY] = name
    return schema, values


def _override(schema: Schema, name: str, value: Any) -> Any:
    """The checked value of a key that is set after the file."""
    if name not in schema:
        raise unknown_key(schema, name, "override")
    return checked(schema, name, value, "override")


def _flatten(schema: Schema, tree: Any, origin: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of each key in a yaml tree. An empty section sets nothing."""
    if tree is None:
        return
    if not isinstance(tree, dict):
        place = f"section {prefix.rstrip('.')}" if prefix else "the file"
        raise UserError(f"{origin}: {place} holds {tree!r}; expected keys with values")
    for part, value in tree.items():
        name = f"{prefix}{part}"
        if name in schema.sections:
            yield from _flatten(schema, value, origin, name + ".")
        elif schema.canonical(name) in schema:
            yield name, value
        else:
            raise unknown_key(schema, name, origin)


def parse_override(text: str) -> tuple[str, Any]:
    """"KEY=VALUE" -> (key, value read as yaml).

    Raises:
        UserError: it is not of this form.
    """
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UserError(f"override {text!r}: expected KEY=VALUE, for example TRAIN.BATCH_SIZE=16")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"override {text!r}: the value is not valid yaml: {error}") from error


def _tree(values: Mapping[str, Any], section: str) -> Section:
    """The `Section` of a dotted name, with its sub-sections."""
    children: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith(section + "."):
            child, dot, _ = name[len(section) + 1:].partition(".")
            children[child] = value if not dot else _tree(values, f"{section}.{child}")
    return Section(children)


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _shown(path: Path) -> str:
    """A path for messages: relative to the repository where it lies in it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
