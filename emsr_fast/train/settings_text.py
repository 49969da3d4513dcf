"""YAML from text that may be hostile: no deeper, larger or longer than settings are."""

from __future__ import annotations

from typing import Any

from emsr_fast.errors import UsageError
from emsr_fast.installing import lacking
from emsr_fast.wording import shortened

MOST_BYTES = 2**20  # of a file of settings
# of all values, those that an alias repeats counted each time
_MOST_VALUES, _DEEPEST = 100_000, 50
_MOST_DIGITS = 100


def parse_yaml(text: str, name: str) -> Any:
    """Return the values in ``text``.

    Args:
        name: of the text, for messages.

    Raises:
        UsageError: it is not YAML, refers to itself, is nested too deep, or has too many values or digits; or YAML is
            not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise UsageError(lacking("training", "train")) from error
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _check_size(root, name)
        return None if root is None else loader.construct_document(root)
    except RecursionError as error:
        raise UsageError(f"{name} is not YAML of settings: it is nested too deep") from error
    except UsageError:
        raise
    # yaml lets through whatever Python says of a value that does not fit its tag
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        raise UsageError(f"{name} is not YAML: {shortened(' '.join(str(error).split()), 200)}") from error


def _check_size(root: Any, name: str) -> None:
    """Refuse aliases that refer to themselves or stand for too much, before they are expanded."""
    sizes: dict[int, int] = {}  # of nodes, by identity; 0 while a node is looked at

    def size(node: Any, depth: int) -> int:
        if depth > _DEEPEST:
            raise RecursionError
        if (known := sizes.get(id(node))) is not None:
            if known == 0:
                raise UsageError(f"{name} is not YAML of settings: an alias refers to what it is a part of")
            return known
        if node.tag.endswith((":int", ":float")) and len(node.value) > _MOST_DIGITS:
            raise UsageError(f"{name} is not YAML of settings: a number has {len(node.value):,} digits")
        sizes[id(node)] = 0
        parts = node.value if isinstance(node.value, list) else []
        # the parts of a mapping are pairs
        inner = (one for part in parts for one in (part if isinstance(part, tuple) else (part,)))
        sizes[id(node)] = 1 + sum(size(one, depth + 1) for one in inner)
        if sizes[id(node)] > _MOST_VALUES:
            raise UsageError(f"{name} is not YAML of settings: its aliases stand for more than {_MOST_VALUES:,} values")
        return sizes[id(node)]

    size(root, 0)
