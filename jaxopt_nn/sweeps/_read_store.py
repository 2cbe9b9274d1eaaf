"""A sweep from its store alone, to be read where the recipe and the data are not at hand."""

import sqlite3
from contextlib import closing
from pathlib import Path

from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._store import Store
from jaxopt_nn.training._stopping import infer_mode

__all__ = ["read_store"]


def read_store(path: str | Path, objective: str | None = None, mode: str | None = None) -> Sweep:
    """What a store holds, to be read over seeds, drawn and reported. It changes nothing, and no code of it is needed.

    Args:
        path: of the file that ``sweep(..., store=path)`` wrote.
        objective: the metric to compare; None for ``valid_loss``, or the only one that there is.
        mode: ``"min"`` or ``"max"``; None takes it from the name.

    Returns:
        The sweep, of all trials that are finished. Values that were functions are their names, and tuples are lists.

    Raises:
        OSError: there is no such file.
        ValueError: it is no store, or empty; there is no such objective, or its name does not tell the mode.

    >>> import tempfile, jax
    >>> from jaxopt_nn import sweeps
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = sweeps.sweep_function(
    ...         lambda key, hp: {"loss": hp["rate"] ** 2}, sweeps.grid(rate=[1.0, 3.0]), key=jax.random.key(0),
    ...         objective="loss", store=folder + "/sweep.sqlite")
    ...     sweeps.read_store(folder + "/sweep.sqlite").best().hparams
    {'rate': 1.0}
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"path: expected the file of a sweep's store, got {str(path)!r}, which is none")
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=30.0)) as connection:
            ids = [row[0] for row in connection.execute("SELECT id FROM trials ORDER BY rowid")]
            records = Store(connection, str(file)).records(ids)
    except sqlite3.DatabaseError as error:
        raise ValueError(f"path: expected the file of a sweep's store, and {str(path)!r} is none: {error}") from error
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    if not names:
        raise ValueError(f"path: expected a store with a finished trial, and {str(path)!r} has none")
    if objective is None:
        objective = "valid_loss" if "valid_loss" in names else names[0] if len(names) == 1 else None
    if objective not in names:
        raise ValueError(f"objective: expected one of {names}, got {objective!r}")
    mode = infer_mode(objective) if mode is None else mode
    if mode not in ("min", "max"):
        raise ValueError(f'mode: expected "min" or "max" for the objective {objective!r}, got {mode!r}')
    folds = any("fold" in record.trial for record in records)
    return Sweep(tuple(records), objective, mode, False, repeats=("seed", "fold") if folds else ("seed",))
