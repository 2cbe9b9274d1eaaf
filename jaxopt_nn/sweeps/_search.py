"""Search with a sampler of Optuna: it is asked for configurations that fill the lanes, and told what came of them."""

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.sweeps._execute import Kept, in_this_process, signature
from jaxopt_nn.sweeps._lanes import Lane, trace_lane
from jaxopt_nn.sweeps._plan import Group, Grouped
from jaxopt_nn.sweeps._progress import open_bar
from jaxopt_nn.sweeps._results import Sweep
from jaxopt_nn.sweeps._session import Session, Traced, Wishes, open_session, run, trace
from jaxopt_nn.sweeps._space import Choice, Conditional, Integers, LogUniform, Space, Trial, Uniform, random
from jaxopt_nn.sweeps._store import Record, trial_id
from jaxopt_nn.sweeps._sweep import job_of
from jaxopt_nn.training import Recipe
from jaxopt_nn.types import Batch, Key

__all__ = ["search"]

_SOUND = ("COMPLETED", "STOPPED_EARLY")


def search(
    recipe: Callable[[Any], Recipe],
    values: Mapping[str, Any],
    train: Batch,
    valid: Batch | None = None,
    *,
    key: Key,
    number: int,
    study: Any = None,
    store: str | Path | None = None,
    objective: str | None = None,
    mode: str | None = None,
    lanes: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Lets a sampler of Optuna choose the configurations, and trains them as lanes.

    The sampler is asked for as many configurations as there are lanes, these are trained, and it is told the mean of
    the objective over their seeds; a configuration with a seed that diverged or failed is told as failed. Fewer lanes
    make better use of the sampler, more lanes of the machine. The study is an ordinary one: its storage, its
    importances and its dashboard work, and the same call goes on with it.

    Args:
        recipe: as of :func:`sweep`.
        values: name to a distribution, or to one value for all, as the keywords of :func:`random`; ``"seed"`` to the
            seeds that each configuration is trained with. Choices are numbers, strings, booleans or None.
        train, valid, key, store, objective, mode, lanes, progress: as of :func:`sweep`.
        number: static; configurations that the study is to have, with those that it has.
        study: of ``optuna.create_study``; None for a new one with Optuna's default sampler.

    Returns:
        The study's trials that are in the store.

    Raises:
        ImportError: Optuna is missing: the extra ``optuna``.
        ValueError: the study's direction is not that of the objective.
    """
    check_positive_int("number", number)
    optuna = _import_optuna()
    listed = random(1, **values)  # raises for what is none
    seeds = [trial["seed"] for trial in listed] if "seed" in values else None
    values = {name: value for name, value in values.items() if name != "seed"}
    _check_choices(values)
    job, _ = job_of(recipe, random(64, **values), train, valid, key)
    wishes = Wishes(
        store, objective or ("train_loss" if valid is None else "valid_loss"), mode, None, lanes, 0, None, progress
    )
    interrupted = False
    with open_session(job, wishes) as session:
        study = _checked_study(optuna, study, session.mode)
        together = max(1, session.lanes // len(seeds or [0]))
        kept: Kept = {}
        traces: dict[Any, Lane] = {}
        executor = functools.partial(in_this_process, kept=kept)
        earlier = _records(session, _space_of(study, values, seeds))
        total = number * len(seeds or [0])
        with open_bar(progress, total, earlier, wishes.objective, session.mode) as show:
            while not interrupted and (left := number - sum(t.state.is_finished() for t in study.trials)) > 0:
                with _asked(optuna, study, min(together, left)) as asked:
                    trials = [_suggested(trial, values) for trial in asked]
                    space = _with_seeds(trials, seeds)

                    def lane_of(group: Group, space: Space = space) -> Lane:
                        name = signature(group, space)
                        if name not in traces:
                            traces[name] = trace_lane(job, space, group)
                        return traces[name]

                    records, _, interrupted = run(session, _rounded(trace(session, space, lane_of)), executor, show)
                    known = {trial_id(record.trial): record for record in records}
                    for trial, hparams in zip(asked, trials, strict=True):
                        own = [known.get(trial_id(each)) for each in _with_seeds([hparams], seeds)]
                        if None not in own:
                            _tell(optuna, study, trial, own, wishes.objective)
        found = _records(session, _space_of(study, values, seeds))
    return Sweep(tuple(found), wishes.objective, session.mode, interrupted)


@contextmanager
def _asked(optuna: Any, study: Any, number: int) -> Generator[list[Any]]:
    """New trials. Those that were told nothing in the end have failed, and are no more under way."""
    asked = [study.ask() for _ in range(number)]
    try:
        yield asked
    finally:
        open_ = {trial.number for trial in study.trials if not trial.state.is_finished()}
        for trial in asked:
            if trial.number in open_:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _tell(optuna: Any, study: Any, trial: Any, records: Sequence[Record | None], objective: str) -> None:
    seen = [record.metrics.get(objective, np.nan) for record in records if record and record.status in _SOUND]
    trial.set_user_attr("values", seen)
    trial.set_user_attr("statuses", [record.status if record else "" for record in records])
    if len(seen) == len(records) and np.isfinite(seen).all():
        study.tell(trial, float(np.mean(seen)))
    else:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _suggested(trial: Any, values: Mapping[str, Any]) -> Trial:
    """A configuration, by the public interface of Optuna."""
    hparams: Trial = {}
    for name, value in values.items():
        if isinstance(value, (Uniform, LogUniform)):
            hparams[name] = trial.suggest_float(name, value.low, value.high, log=isinstance(value, LogUniform))
        elif isinstance(value, Integers):
            hparams[name] = trial.suggest_int(name, value.low, value.high, log=value.log)
        elif isinstance(value, Choice):
            hparams[name] = trial.suggest_categorical(name, value.values)
        elif isinstance(value, Conditional):
            options = dict(value.options)
            hparams[name] = trial.suggest_categorical(name, list(options))
            hparams |= _suggested(trial, options[hparams[name]])
        else:
            hparams[name] = value
    return hparams


class _Fixed:
    """A finished trial of a study, asked for what it suggested."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def _suggest(self, name: str, *_: Any, **__: Any) -> Any:
        return self._params[name]

    suggest_float = suggest_int = suggest_categorical = _suggest


def _space_of(study: Any, values: Mapping[str, Any], seeds: Sequence[int] | None) -> Space:
    """The trials of a study; those of another space are left out."""
    trials: list[Trial] = []
    for trial in study.trials:
        try:
            trials.append(_suggested(_Fixed(trial.params), values))
        except KeyError:
            continue
    return _with_seeds(trials, seeds)


def _with_seeds(trials: Sequence[Trial], seeds: Sequence[int] | None) -> Space:
    """Each configuration once, with every seed."""
    once = {trial_id(trial): trial for trial in trials}.values()
    return [dict(trial) for trial in once] if seeds is None else [{**t, "seed": seed} for t in once for seed in seeds]


def _records(session: Session, space: Space) -> list[Record]:
    known = {trial_id(trial): trial for trial in space}
    return [record._replace(trial=known[trial_id(record.trial)]) for record in session.store.records(list(known))]


def _rounded(traced: Traced) -> Traced:
    """Widths that are powers of two: groups are of another size in every round, and their programs are kept."""
    groups: list[Grouped[Lane]] = [
        each._replace(group=each.group._replace(size=1 << (len(each.group.trials) - 1).bit_length()))
        for each in traced.groups
    ]
    return traced._replace(groups=groups)


def _checked_study(optuna: Any, study: Any, mode: str) -> Any:
    direction = "minimize" if mode == "min" else "maximize"
    if study is None:
        return optuna.create_study(direction=direction)
    if not hasattr(study, "ask"):
        raise TypeError(f"study: expected one of optuna.create_study, got {study!r}")
    directions = [each.name.lower() for each in study.directions]
    if directions != [direction]:
        raise ValueError(f'study: expected direction="{direction}" for mode="{mode}", got {directions}')
    return study


def _check_choices(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        options = value.values if isinstance(value, Choice) else ()
        if isinstance(value, Conditional):
            options = tuple(option for option, _ in value.options)
            for _, inner in value.options:
                _check_choices(inner)
        for option in options:
            if option is not None and not isinstance(option, (bool, int, float, str)):
                raise TypeError(
                    f"{name}: expected choices that Optuna can store (numbers, strings, None), got {option!r}; "
                    f"give a string, and look it up in the recipe"
                )


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("search needs Optuna: pip install 'jaxopt-nn[optuna]'") from error
    return optuna
