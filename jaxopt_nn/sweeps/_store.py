"""The store of a sweep: one SQLite file, or memory, that holds what was finished and where it came from.

Every finished chunk is one transaction, so a process that is killed loses the chunk it was at and nothing else. Trials
are known by what they say, not by their place: a space that is extended runs only what is new.
"""

import difflib
import hashlib
import io
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn.sweeps._space import Trial

__all__ = ["Record", "Store", "data_fingerprint", "open_store", "trial_id"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS provenance (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    id TEXT PRIMARY KEY, hparams TEXT NOT NULL, status TEXT NOT NULL, error TEXT, metrics TEXT NOT NULL,
    history BLOB, seconds REAL, finished TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


class Record(NamedTuple):
    """What is kept of a finished trial.

    Attributes:
        trial: its hyperparameters, ``seed`` among them.
        status: the name of its ``Status``, ``"FAILED"`` if its code raised, or ``"PRUNED"``.
        error: the exception, if it failed.
        metrics: name to number.
        history: name to array ``[epochs]``.
        seconds: its share of the time of its chunk.
    """

    trial: Trial
    status: str
    error: str | None
    metrics: dict[str, float]
    history: dict[str, np.ndarray[Any, Any]]
    seconds: float


class Store(NamedTuple):
    """An open store.

    Attributes:
        connection: to the database.
        path: of its file; ``":memory:"`` for none.
    """

    connection: sqlite3.Connection
    path: str

    def finished(self) -> set[str]:
        """The ids of the trials that need not run again. One whose code raised is tried again."""
        return {row[0] for row in self.connection.execute("SELECT id FROM trials WHERE status != 'FAILED'")}

    def add(self, records: Sequence[Record]) -> None:
        """Adds finished trials, all of them or, if the process ends meanwhile, none."""
        rows = [
            (
                trial_id(record.trial),
                _json(record.trial),
                record.status,
                record.error,
                _json(record.metrics),
                _packed(record.history),
                record.seconds,
            )
            for record in records
        ]
        with self.connection:
            self.connection.executemany(
                "INSERT OR REPLACE INTO trials (id, hparams, status, error, metrics, history, seconds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def records(self, ids: Sequence[str]) -> list[Record]:
        """The finished trials of these ids, in their order; those that are not finished are left out."""
        columns = "id, hparams, status, error, metrics, history, seconds"
        rows = {row[0]: row[1:] for row in self.connection.execute(f"SELECT {columns} FROM trials")}
        return [_record(rows[each]) for each in ids if each in rows]

    def close(self) -> None:
        """Closes the connection; a file has all of it."""
        self.connection.close()


def open_store(path: str | Path | None, provenance: Mapping[str, str]) -> Store:
    """Opens a store, or makes one.

    Args:
        path: of the file; None for a store in memory.
        provenance: what its trials are of, such as the source of the recipe and a fingerprint of the data.

    Raises:
        ValueError: the file is no store, or one of another recipe, data or key; it says which, and the difference.
        OSError: the folder is missing, or nothing can be written there.
    """
    name = ":memory:" if path is None else str(path)
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise FileNotFoundError(f"store: expected a file in a folder that exists, got {name!r}")
    try:
        connection = sqlite3.connect(name, timeout=30.0)
    except sqlite3.Error as error:
        raise OSError(f"store: {name!r} cannot be opened: {error}") from error
    try:
        _check_provenance(connection, name, provenance)
    except BaseException:
        connection.close()
        raise
    return Store(connection, name)


def _check_provenance(connection: sqlite3.Connection, name: str, provenance: Mapping[str, str]) -> None:
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
        held = dict(connection.execute("SELECT name, value FROM provenance"))
        if not held:
            with connection:
                connection.executemany("INSERT INTO provenance VALUES (?, ?)", provenance.items())
    except sqlite3.OperationalError as error:
        raise OSError(f"store: {name!r} cannot be written: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"store: expected a file of a sweep, and {name!r} is none: {error}") from error
    for key, value in provenance.items():
        if held and held.get(key) != value:
            raise ValueError(f"store: {name!r} is of another {key}: {_difference(held.get(key, ''), value)}")


def trial_id(trial: Trial) -> str:
    """A name for what a trial says, the same in every process."""
    return hashlib.sha256(_json(trial).encode()).hexdigest()[:16]


def data_fingerprint(data: Any) -> str:
    """Shapes, dtypes and a hash of what arrays hold, the same in every process."""
    digest, shapes = hashlib.sha256(), []
    for leaf in jax.tree.leaves(data):
        array = np.asarray(leaf)
        shapes.append(f"{array.dtype}{list(array.shape)}")
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"{' '.join(shapes)} {digest.hexdigest()[:16]}"


def _difference(old: str, new: str) -> str:
    if "\n" not in old + new:
        return f"there {old!r}, here {new!r}"
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "there", "here", lineterm="", n=1)
    return "\n" + "\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_named)


def _named(value: Any) -> Any:
    """What is no JSON: a tuple is a list there, a function its name."""
    if isinstance(value, np.generic):
        return value.item()
    name = f"{getattr(value, '__module__', '?')}.{getattr(value, '__qualname__', '?')}"
    if "?" in name or "<lambda>" in name or "<locals>" in name:
        raise TypeError(
            f"space: expected values that have a name in every process, got {value!r}; give a string, and look it up "
            f"in the recipe"
        )
    return name


def _packed(arrays: Mapping[str, Any]) -> bytes:
    with io.BytesIO() as buffer:
        np.savez_compressed(buffer, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})
        return buffer.getvalue()


def _record(row: Sequence[Any]) -> Record:
    hparams, status, error, metrics, history, seconds = row
    with closing(np.load(io.BytesIO(history), allow_pickle=False)) as arrays:
        return Record(json.loads(hparams), status, error, json.loads(metrics), dict(arrays.items()), seconds)
