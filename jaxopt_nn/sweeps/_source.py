"""What a store's trials were computed by: each group's program is compared, and the difference shown.

Of a program its checksum decides, so a comment or another name in the recipe changes nothing, and a constant in a
function that the recipe calls does.
"""

import difflib
import inspect
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxopt_nn.sweeps._lanes import Lane, Work
from jaxopt_nn.sweeps._plan import Group, Grouped
from jaxopt_nn.sweeps._store import Store, to_json

__all__ = ["check_programs"]

_SHOWN = 20  # lines of a difference


def check_programs(store: Store, work: Work, groups: Sequence[Grouped[Lane]]) -> None:
    """Keeps the groups' programs in the store. Raises ``ValueError`` if it holds another one of the same group."""
    held = {row[0]: row[1:] for row in store.connection.execute("SELECT name, checksum, source, text FROM programs")}
    source = _source(work.function or work.recipe)
    new: list[tuple[str, str, str, bytes]] = []
    matched = False
    for group, lane, _ in groups:
        if not isinstance(lane, Lane):
            continue
        name, checksum = _name(group, lane), lane.checksum()
        if name in held:
            there, old_source, old_text = held[name]
            if there != checksum:
                raise ValueError(
                    f"store: {store.path!r} is of another recipe{_of(group)}: "
                    + (
                        _lines(old_source, source)
                        or _lines(zlib.decompress(old_text).decode(), _text(lane))
                        or "an array that it closes over"
                    )
                )
            matched = True
        else:
            new.append((name, checksum, source, zlib.compress(_text(lane).encode(), 1)))
    known = {_version(name) for name in held}
    if new and held and jax.__version__ not in known:
        raise ValueError(
            f"store: {store.path!r} is of JAX {', '.join(sorted(known))}, here it is {jax.__version__}; its trials are "
            f"not comparable to the bit: take another file"
        )
    if held and not matched and new and all(row[1] != source for row in held.values()):
        raise ValueError(f"store: {store.path!r} is of another recipe: {_lines(next(iter(held.values()))[1], source)}")
    with store.connection:
        store.connection.executemany("INSERT OR IGNORE INTO programs VALUES (?, ?, ?, ?)", new)


def _name(group: Group, lane: Lane) -> str:
    """What of a group fixes its program, besides the recipe."""
    numbers = {name: str(shape.dtype) for name, shape in lane.inputs[0].items()}
    return f"{jax.__version__} {to_json([group.static, numbers])}"


def _version(name: str) -> str:
    return name.split(" ", 1)[0]


def _of(group: Group) -> str:
    static = ", ".join(f"{name}={value!r}" for name, value in group.static.items())
    return f" ({static})" if static else ""


def _text(lane: Lane) -> str:
    return str(lane.program)


def _lines(old: str, new: str) -> str:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "there", "here", lineterm="", n=0))
    more = [f"... and {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []
    return "".join(f"\n{line}" for line in lines[:_SHOWN] + more)


def _source(function: Callable[..., Any] | None) -> str:
    try:
        return inspect.getsource(function) if function is not None else ""
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(type(function)))
