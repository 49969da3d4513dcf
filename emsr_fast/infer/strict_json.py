"""JSON values read as dataclasses, strictly: no part is missing, none is unknown, each has its type.

pydantic is not used: it refuses file names that are not UTF-8, and reads 1 as 1.0 where a float is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

_MOST_SHOWN = 60  # characters of a wrong value in a message


def read_as(kind: Any, value: Any, name: str) -> Any:
    """Return ``value``, made by ``json.loads``, as ``kind``.

    Args:
        kind: a dataclass, or the type of one of its fields: str, int, float, bool, None, Any, a numpy dtype, a literal,
            a union, a tuple of fixed or any length, a dict or mapping with text as keys.
        name: of the value, for messages; parts are ``name.part``.

    Raises:
        ValueError: a part is missing, is unknown, or has another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, name)
    if origin in (Union, UnionType):
        return _read_union(inner, value, name)
    if origin is tuple and inner[-1] is Ellipsis:
        if not isinstance(value, list):
            raise _wrong(value, name, "a list")
        return tuple(read_as(inner[0], part, f"{name}[{n}]") for n, part in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(inner):
            raise _wrong(value, name, f"a list of {len(inner)}")
        return tuple(read_as(part, value[n], f"{name}[{n}]") for n, part in enumerate(inner))
    if origin in (dict, Mapping):
        return {key: read_as(inner[1], item, f"{name}.{key}") for key, item in _object(value, name).items()}
    if origin is Literal:
        if value not in inner:
            raise _wrong(value, name, f"one of {', '.join(map(str, inner))}")
        return value
    if kind is np.dtype:
        return _read_dtype(value, name)
    # True is an int to Python, and a whole number may be a float
    allowed: Any = {Any: object, float: (int, float), int: int, str: str, bool: bool, NoneType: NoneType}[kind]
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind in (int, float)):
        raise _wrong(value, name, f"of type {kind.__name__}")
    return value


def _read_dataclass(kind: Any, value: Any, name: str) -> Any:
    hints, values = get_type_hints(kind), _object(value, name)
    names = [field.name for field in fields(kind)]
    for part in names:
        if part not in values:
            raise ValueError(f"{name}.{part} is missing")
    for part in values:
        if part not in names:
            raise ValueError(f"{name}.{part} is not known")
    return kind(**{part: read_as(hints[part], values[part], f"{name}.{part}") for part in names})


def _read_union(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    errors = []
    for kind in kinds:
        try:
            return read_as(kind, value, name)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _read_dtype(value: Any, name: str) -> np.dtype:
    try:
        found = np.dtype(value) if isinstance(value, str) else None
    except TypeError:
        found = None
    if found is None or found.kind not in "uif":
        raise _wrong(value, name, "a type of pixels")
    return found


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, name, "an object with named parts")
    return value


def _wrong(value: Any, name: str, expected: str) -> ValueError:
    shown = repr(value)
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]}..."
    return ValueError(f"{name} is {shown}, not {expected}")
