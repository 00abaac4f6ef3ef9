"""Check one value of a configuration against its key."""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

from ..utils.errors import UserError
from .schema import Key, Schema, show

_SCALARS = {"ints": "int", "floats": "float", "strs": "str"}


def checked(schema: Schema, name: str, value: Any, origin: str) -> Any:
    """`value` in the type of key `name` (lists as tuples).

    A whole number passes for a number, and so do a text such as 1e-4 that yaml does not read as a number and, as some
    official files have it, a list with the number alone.

    Args:
        schema: of the configuration's family.
        name: dotted name of a key of it.
        origin: where the value stands (a file, or the command line), for the message.

    Raises:
        UserError: wrong type or out of range; names origin, key, what was found and what is allowed.
    """
    key = schema[name]
    try:
        value = _converted(key, value)
    except ValueError:
        raise UserError(f"{origin}: {name} is {_found(value)}; expected {key.allowed()}") from None
    value = key.stands_for.get(value, value)
    if not _in_range(key, value):
        raise UserError(f"{origin}: {name} is {_found(value)}; expected {key.allowed()}{_suggestion(key, value)}")
    return value


def unknown_key(schema: Schema, name: str, origin: str) -> UserError:
    """The error for a name that is no key of the schema, with the nearest known ones."""
    if name in schema.sections:
        keys = ", ".join(key for key in schema if key.startswith(name + "."))
        return UserError(f"{origin}: {name} is a section, not a key; set one of {keys}")
    parent, _, leaf = name.rpartition(".")
    siblings = _children(schema, parent)
    near = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)
    same_leaf = [key for key in schema if key.rpartition(".")[2] == leaf]
    prefix = parent + "." if parent else ""
    if near:
        hint = f"did you mean {prefix}{near[0]}?"
    elif same_leaf:
        hint = f"did you mean {' or '.join(same_leaf)}?"
    elif parent and parent not in schema.sections:
        guess = difflib.get_close_matches(name, schema, n=1, cutoff=0.6)
        hint = f"did you mean {guess[0]}?" if guess else f"the sections are {', '.join(_children(schema, ''))}"
    else:
        hint = f"allowed {'in ' + parent if parent else 'at the top'}: {', '.join(siblings)}"
    return UserError(f"{origin}: unknown key {name}; {hint}")


def _children(schema: Schema, parent: str) -> list[str]:
    """Names directly inside a section ('' is the top), in the schema's order."""
    start = len(parent) + 1 if parent else 0
    inside = [name for name in schema if not parent or name.startswith(parent + ".")]
    return list(dict.fromkeys(name[start:].split(".")[0] for name in inside))


def _converted(key: Key, value: Any) -> Any:
    """`value` in the key's kind; ValueError when it is of another."""
    if key.kind in _SCALARS:
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return tuple(_scalar(_SCALARS[key.kind], item) for item in value)
    if key.kind in ("int", "float") and isinstance(value, list) and len(value) == 1:
        value, = value
    return _scalar(key.kind, value)


def _scalar(kind: str, value: Any) -> Any:
    if kind == "str" and value is None:
        return ""
    if kind == "float" and isinstance(value, (str, int)) and not isinstance(value, bool):
        value = float(value)
    expected = {"bool": bool, "int": int, "float": float, "str": str}[kind]
    if type(value) is not expected or (kind == "float" and not math.isfinite(value)):
        raise ValueError
    return value


def _in_range(key: Key, value: Any) -> bool:
    if key.fixed is not None:
        return value == key.default
    if key.length is not None and not key.length[0] <= len(value) <= (key.length[1] or len(value)):
        return False
    entries: Iterable = value if isinstance(value, tuple) else (value,)
    return all(_entry_in_range(key, entry) for entry in entries)


def _entry_in_range(key: Key, entry: Any) -> bool:
    if key.choices is not None:
        free = any(entry.startswith(prefix) and len(entry) > len(prefix) for prefix in key.prefixes)
        return entry in key.choices or free
    if key.pattern is not None:
        return re.fullmatch(key.pattern, entry) is not None
    return ((key.low is None or entry >= key.low) and (key.high is None or entry <= key.high)
            and (key.above is None or entry > key.above))


def _found(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return f"a section with {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, str):
        return f"the text {value!r}"
    return show(value)


def _suggestion(key: Key, value: Any) -> str:
    """'; did you mean X?' for a text near to an allowed one."""
    if key.choices is None:
        return ""
    for entry in value if isinstance(value, tuple) else (value,):
        lowered = {choice.lower(): choice for choice in key.choices}
        near = difflib.get_close_matches(entry.lower(), lowered, n=1, cutoff=0.6)
        if not _entry_in_range(key, entry) and near:
            return f"; did you mean {lowered[near[0]]}?"
    return ""
