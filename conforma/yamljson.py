"""YAML read the way Kubernetes tools read it: as another spelling of JSON.

What comes out holds only JSON values. Time stamps and sexagesimal numbers stay
text and keys become text, as with ``sigs.k8s.io/yaml``, which the Go tool uses
for snapshots and policies; its error texts begin with the same words.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import yaml

# Values that aliases may add to a document; real ones add a handful.
_MOST_ALIASED_VALUES: Final = 1_000_000
# libyaml's composer recurses on the C stack, which overflows somewhere above 20,000.
_DEEPEST: Final = 1_000


class NotYaml(ValueError):
    """Text that is neither YAML nor JSON; says where and why."""


def load(text: str) -> Any:
    """The first document in ``text``, JSON or YAML, as JSON values; ``None`` if it is empty.

    Raises ``NotYaml``, also for a document that contains itself or grows out
    of proportion through aliases.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass  # most YAML is not JSON; what is wrong with it, the YAML parser says
    import yaml

    try:
        _check_depth(text)
        loader: Any = _loader_class()(text)
        try:
            document = loader.get_data() if loader.check_data() else None
        finally:
            loader.dispose()
        return _Converter(_MOST_ALIASED_VALUES + len(text)).json_value(document)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        where = f"line {line + 1}: " if line else ""
        raise NotYaml(
            f"error converting YAML to JSON: yaml: {where}{error.problem or error.context}"
        ) from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise NotYaml(f"error converting YAML to JSON: yaml: {reason}") from error
    except (ValueError, OverflowError) as error:
        raise NotYaml(f"error converting YAML to JSON: yaml: {error}") from error
    except RecursionError as error:
        raise NotYaml("error converting YAML to JSON: yaml: nested too deeply") from error


class _Converter:
    """Turns what the YAML parser built into plain JSON values, counting them."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._open: set[int] = set()

    def json_value(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("document contains excessive aliasing")
        if isinstance(value, dict):
            self._enter(value)
            result: Any = {_key(key): self.json_value(item) for key, item in value.items()}
            self._open.discard(id(value))
            return result
        if isinstance(value, list | set | tuple):
            self._enter(value)
            result = [self.json_value(item) for item in value]
            self._open.discard(id(value))
            return result
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} has no JSON form")
        return value

    def _enter(self, value: Any) -> None:
        if id(value) in self._open:
            raise ValueError("a value contains itself")
        self._open.add(id(value))


def _check_depth(text: str) -> None:
    """Raises ``RecursionError`` for a document that would overflow the C stack."""
    if sum(text.count(opener) for opener in ("[", "{", "- ", "? ")) < _DEEPEST:
        return
    import yaml

    depth = 0
    for event in yaml.parse(text, _loader_class()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    raise ValueError(f"unsupported map key of type {type(key).__name__}")


def _refuse(name: str) -> None:
    raise ValueError(name)


@cache
def _loader_class() -> type[yaml.SafeLoader]:
    """The safe loader without the two kinds of scalars that have no JSON form."""
    import re

    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own convention
            first: [
                (tag, regexp)
                for tag, regexp in resolvers
                if tag.rpartition(":")[2] not in ("timestamp", "int", "float")
            ]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"""^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?
            |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
            |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
            re.VERBOSE,
        ),
        list("-+0123456789."),
    )
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:int",
        re.compile(r"^[-+]?(?:0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
        list("-+0123456789"),
    )
    return Loader
