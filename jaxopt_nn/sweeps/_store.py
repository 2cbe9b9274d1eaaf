"""The store of a sweep: one SQLite file, or memory, that holds what was finished and where it came from.

Every finished chunk is one transaction, so a process that is killed loses the chunk it was at and nothing else. Trials
are known by what they say, not by their place: a space that is extended runs only what is new.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxopt_nn.sweeps._space import Trial

__all__ = ["PAUSED", "PRUNED", "Record", "Store", "data_fingerprint", "open_store", "to_json", "trial_id"]

PAUSED, PRUNED = "PAUSED", "PRUNED"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS provenance (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS programs (name TEXT PRIMARY KEY, checksum TEXT NOT NULL, source TEXT, text BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    id TEXT PRIMARY KEY, hparams TEXT NOT NULL, status TEXT NOT NULL, error TEXT, metrics TEXT NOT NULL,
    history BLOB, seconds REAL, finished TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS states (id TEXT PRIMARY KEY, leaves BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS leases (id TEXT PRIMARY KEY, worker TEXT NOT NULL, until REAL NOT NULL);
"""


class Record(NamedTuple):
    """What is kept of a finished trial.

    Attributes:
        trial: its hyperparameters, ``seed`` among them.
        status: the name of its ``Status``, ``"FAILED"`` if its code raised, or ``"PRUNED"``.
        error: the exception, if it failed.
        metrics: name to number.
        history: name to array ``[epochs]``.
        seconds: its share of the time of its chunks.
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
        rows = self.connection.execute("SELECT id FROM trials WHERE status NOT IN ('FAILED', 'PAUSED')")
        return {row[0] for row in rows}

    def failed(self) -> set[str]:
        """The ids of the trials whose code raised."""
        return {row[0] for row in self.connection.execute("SELECT id FROM trials WHERE status = 'FAILED'")}

    def add(
        self, records: Sequence[Record], states: Mapping[str, bytes] | None = None, dropped: Sequence[str] = ()
    ) -> None:
        """Adds trials, all of them or, if the process ends meanwhile, none.

        Args:
            records: the trials; those that are ``PAUSED`` will go on.
            states: of some of them, by id, what they go on from, or ended with. The others lose theirs.
            dropped: other trials that lose theirs.
        """
        rows = [
            (
                trial_id(record.trial),
                to_json(record.trial),
                record.status,
                record.error,
                to_json(record.metrics),
                _packed(record.history),
                record.seconds,
            )
            for record in records
        ]
        try:
            with self.connection:
                self.connection.executemany(
                    "INSERT OR REPLACE INTO trials (id, hparams, status, error, metrics, history, seconds) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
                for table in ("states", "leases"):
                    self.connection.executemany(f"DELETE FROM {table} WHERE id = ?", [row[:1] for row in rows])
                self.connection.executemany("DELETE FROM states WHERE id = ?", [(each,) for each in dropped])
                self.connection.executemany("INSERT INTO states VALUES (?, ?)", (states or {}).items())
        except sqlite3.OperationalError as error:
            raise OSError(
                f"store: {self.path!r} cannot be written: {error}; the trials that it holds are kept"
            ) from error

    def states(self) -> dict[str, bytes]:
        """What trials go on from, or ended with."""
        return dict(self.connection.execute("SELECT id, leaves FROM states"))

    def records(self, ids: Sequence[str], *, paused: bool = False) -> list[Record]:
        """The trials of these ids, in their order; those that are not finished are left out."""
        columns = "id, hparams, status, error, metrics, history, seconds"
        where = "" if paused else f" WHERE status != '{PAUSED}'"
        rows = {row[0]: row[1:] for row in self.connection.execute(f"SELECT {columns} FROM trials{where}")}
        return [_record(rows[each]) for each in ids if each in rows]

    def lease(self, wanted: Sequence[str], worker: str, seconds: float, *, again: Collection[str]) -> list[str]:
        """Takes those of the wanted trials that are neither tried nor held by anybody.

        Args:
            wanted: ids.
            worker: who takes them.
            seconds: for how long; then, unless they are renewed, anybody may take them.
            again: trials that failed before and are to be tried again.
        """
        now = time.time()
        with self.connection:
            self.connection.execute("BEGIN IMMEDIATE")  # no other process may look between these two
            tried = {row[0] for row in self.connection.execute("SELECT id FROM trials")} - set(again)
            held = {row[0] for row in self.connection.execute("SELECT id FROM leases WHERE until > ?", (now,))}
            free = [each for each in wanted if each not in tried | held]
            rows = [(each, worker, now + seconds) for each in free]
            self.connection.executemany("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", rows)
        return free

    def is_anybody_at_work(self) -> bool:
        """Whether somebody holds a trial."""
        row = self.connection.execute("SELECT COUNT(*) FROM leases WHERE until > ?", (time.time(),)).fetchone()
        return row[0] > 0

    def renew(self, worker: str, seconds: float) -> None:
        """Holds what the worker holds for some time more."""
        with self.connection:
            self.connection.execute("UPDATE leases SET until = ? WHERE worker = ?", (time.time() + seconds, worker))

    def release(self, worker: str) -> None:
        """Gives back what the worker holds."""
        with self.connection:
            self.connection.execute("DELETE FROM leases WHERE worker = ?", (worker,))

    @contextmanager
    def another(self) -> Generator["Store"]:
        """The same store by a connection of its own, for another thread."""
        with closing(sqlite3.connect(self.path, timeout=60.0)) as connection:
            yield Store(connection, self.path)

    def close(self) -> None:
        """Closes the connection; a file has all of it."""
        self.connection.close()


def open_store(path: str | Path | None, provenance: Mapping[str, str], *, shared: bool = False) -> Store:
    """Opens a store, or makes one.

    Args:
        path: of the file; None for a store in memory.
        provenance: what its trials are of, such as a fingerprint of the data.
        shared: whether processes on other machines open it too: then without a write-ahead log, which needs memory
            that they share.

    Raises:
        ValueError: the file is no store, or one of other data or another key; it says which, and the difference.
        OSError: the folder is missing, or nothing can be written there.
    """
    name = ":memory:" if path is None else str(path)
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise FileNotFoundError(f"store: expected a file in a folder that exists, got {name!r}")
    try:
        connection = sqlite3.connect(name, timeout=60.0 if shared else 30.0)
    except sqlite3.Error as error:
        raise OSError(f"store: {name!r} cannot be opened: {error}") from error
    try:
        _check_provenance(connection, name, provenance, "DELETE" if shared else "WAL")
    except BaseException:
        connection.close()
        raise
    return Store(connection, name)


def _check_provenance(connection: sqlite3.Connection, name: str, provenance: Mapping[str, str], journal: str) -> None:
    try:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.executescript(_SCHEMA)
        with connection:
            rows = {**provenance}.items()
            connection.executemany("INSERT OR IGNORE INTO provenance VALUES (?, ?)", rows)
        held = dict(connection.execute("SELECT name, value FROM provenance"))
    except sqlite3.OperationalError as error:
        raise OSError(f"store: {name!r} cannot be written: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"store: expected a file of a sweep, and {name!r} is none: {error}") from error
    for key, value in provenance.items():
        if held[key] != value:
            raise ValueError(f"store: {name!r} is of another {key}: there {held[key]!r}, here {value!r}")


def trial_id(trial: Trial) -> str:
    """A name for what a trial says, the same in every process."""
    return hashlib.sha256(to_json(trial).encode()).hexdigest()[:16]


def data_fingerprint(data: Any) -> str:
    """Shapes, dtypes and a hash of what arrays hold, the same in every process."""
    digest, shapes = hashlib.sha256(), []
    for leaf in jax.tree.leaves(data):
        array = np.asarray(leaf)
        shapes.append(f"{array.dtype}{list(array.shape)}")
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"{' '.join(shapes)} {digest.hexdigest()[:16]}"


def to_json(value: Any) -> str:
    """What a trial or its metrics say, as a line."""
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
    """Arrays in one piece: a line that says what they are, and their numbers."""
    listed = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    head = json.dumps({name: [value.dtype.name, value.shape] for name, value in listed.items()})
    return b"".join([head.encode(), b"\n", *(value.tobytes() for value in listed.values())])


def _unpacked(blob: bytes) -> dict[str, np.ndarray[Any, Any]]:
    head, numbers = blob.split(b"\n", 1)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, (dtype, shape) in json.loads(head).items():
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        arrays[name] = np.frombuffer(numbers[:size], dtype).reshape(shape)
        numbers = numbers[size:]
    return arrays


def _record(row: Sequence[Any]) -> Record:
    hparams, status, error, metrics, history, seconds = row
    return Record(json.loads(hparams), status, error, json.loads(metrics), _unpacked(history), seconds)
