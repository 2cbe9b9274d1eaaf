"""Hypergradients: the validation loss at the end of a run, differentiated by its hyperparameters.

A run of T steps is about √T segments of about √T steps. Only the state at the start of each segment is kept. The
backward pass computes one segment after the other again, so about 2 √T steps are held at any time instead of T.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxopt_nn._arguments import check_positive_int
from jaxopt_nn.training import Recipe, RunKeys
from jaxopt_nn.training._augmentation import training_batch
from jaxopt_nn.training._batches import count_examples, count_steps, order_of_steps
from jaxopt_nn.training._checks import check_run_arguments
from jaxopt_nn.training._evaluation import evaluate_model
from jaxopt_nn.training._programs import compiled, is_traced_any
from jaxopt_nn.training._recipe import build_recipe
from jaxopt_nn.training._recipe_step import make_recipe_step
from jaxopt_nn.training._run import check_run_key, finish, split_key
from jaxopt_nn.training._run_state import init_run_state
from jaxopt_nn.types import Array, Batch, Key, PyTree, TrainState

__all__ = ["Hypergradient", "check_arguments", "float_leaves", "hypergradient", "validation_loss"]


class Hypergradient(NamedTuple):
    """What :func:`hypergradient` returns.

    Attributes:
        valid_loss: scalar, the mean validation loss after the last step. Not finite if the run diverged; the gradient
            then means nothing.
        gradient: the tree of the hyperparameters: the derivative of ``valid_loss`` by each float, of its shape, and
            None for all else.
    """

    valid_loss: Array
    gradient: PyTree


def validation_loss(
    recipe: Callable[[Any], Recipe],
    hparams: PyTree,
    train: Batch,
    valid: Batch,
    *,
    key: Key | RunKeys,
    steps: int | None = None,
    per_step: Sequence[str] = (),
) -> Array:
    """The validation loss after a fixed number of steps: a pure function, to be differentiated by ``hparams``.

    ``L(h) = loss(w_T; valid)``, ``w_{t+1} = step(w_t, h, h_t)``. Its values are those of a run, without what belongs
    to the epochs: no step is skipped, and no metric is recorded.

    Args:
        recipe: a function from hyperparameters to a :class:`~jaxopt_nn.training.Recipe`. Every number that it lets be
            traced has a derivative: rates, also one for each layer, penalties, momenta, drop rates, scales of initial
            weights.
        hparams: any pytree, as of a run. Floats and arrays of floats are differentiated; all else is static.
        train, valid: the data.
        key: a PRNG key, or :class:`~jaxopt_nn.training.RunKeys`, as of a run.
        steps: static, T; None for the recipe's epochs.
        per_step: names in ``hparams`` whose arrays ``[T, ...]`` hold a value for each step. The recipe sees that of
            the current step.

    Returns:
        A scalar: the mean loss over ``valid``, without penalty, in evaluation mode.

    Raises:
        TypeError, ValueError: as a run; if the recipe has early stopping or a plateau, which are not smooth; if an
            array of ``per_step`` is missing or of another length.

    References:
        Maclaurin, Duvenaud and Adams, "Gradient-based hyperparameter optimization through reversible learning", 2015.
        Griewank, "Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
        differentiation", 1992.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import checking, layers, losses, optimizers, sweeps, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (32, 3))
    >>> data = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(hp), batch_size=16)
    >>> def loss(rate):
    ...     return sweeps.validation_loss(recipe, rate, data, data, key=jax.random.key(1), steps=5)
    >>> checking.check_gradients(loss, jnp.float32(0.05), key=jax.random.key(2)).verdict
    'PASS'
    """
    check_run_key(key)
    own, common = _split_per_step(hparams, per_step)
    parts = build_recipe(recipe, _joined(common, own, 0))
    _check_smooth(parts)
    train, valid = _check_data(parts, train, valid)
    examples = count_examples(train)
    steps_per_epoch = count_steps(examples, parts.batch_size, parts.last_batch)
    if steps is None:
        steps = parts.epochs * steps_per_epoch
    check_positive_int("steps", steps)
    _check_lengths(own, steps)
    keys = split_key(key)
    start = init_run_state(parts, keys, train)
    orders = order_of_steps(keys.order, examples, parts.batch_size, parts.last_batch, parts.shuffle, steps)

    def step(state: TrainState, now: Any) -> tuple[TrainState, None]:
        indices, own = now
        # None: a step that is not finite is taken, and shows in the loss. To skip it is not smooth.
        parts = build_recipe(recipe, _joined(common, own))._replace(nonfinite_limit=None)  # pyright: ignore[reportArgumentType]
        epoch = 0 if parts.augment is None else state.step // steps_per_epoch
        batch = training_batch(parts.augment, train, indices, state.key, epoch)
        return make_recipe_step(parts, start)(state, batch)[0], None

    state = _checkpointed_scan(step, start.state, (orders, own), steps)
    last = build_recipe(recipe, _joined(common, own, steps - 1))
    trained = finish(start._replace(state=state), {})
    return evaluate_model(last, trained.params, trained.model_state, valid)["loss"]


def hypergradient(
    recipe: Callable[[Any], Recipe],
    hparams: PyTree,
    train: Batch,
    valid: Batch,
    *,
    key: Key | RunKeys,
    steps: int | None = None,
    per_step: Sequence[str] = (),
) -> Hypergradient:
    """The validation loss after a fixed number of steps, and its gradient with respect to the hyperparameters.

    Args:
        recipe, hparams, train, valid, key, steps, per_step: as of :func:`validation_loss`.

    Returns:
        A :class:`Hypergradient`. Outside of ``jit`` a call is one program, compiled once for all equal recipes.

    Raises:
        TypeError, ValueError: as :func:`validation_loss`; ``hparams`` holds no float.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import layers, losses, optimizers, sweeps, training
    >>> from jaxopt_nn.types import Batch
    >>> x = jax.random.normal(jax.random.key(0), (32, 3))
    >>> data = Batch(x, x @ jnp.array([[1.0], [-2.0], [0.5]]))
    >>> def recipe(hp):
    ...     return training.Recipe(
    ...         model=layers.dense(1), loss=losses.mean_squared_error, optimizer=optimizers.sgd(hp["rate"]),
    ...         batch_size=hp["batch_size"])
    >>> hparams = {"rate": jnp.full(10, 0.01), "batch_size": 16}
    >>> found = sweeps.hypergradient(recipe, hparams, data, data, key=jax.random.key(1), steps=10, per_step=["rate"])
    >>> found.gradient["rate"].shape, bool((found.gradient["rate"] < 0).all())  # larger rates would help
    ((10,), True)
    """
    floats, assemble = float_leaves(hparams)

    def program(floats: list[Any], key: Key | RunKeys, train: Batch, valid: Batch) -> tuple[Array, list[Array]]:
        def loss(floats: list[Any]) -> Array:
            return validation_loss(recipe, assemble(floats), train, valid, key=key, steps=steps, per_step=per_step)

        return jax.value_and_grad(loss)(floats)

    arguments = (floats, key, train, valid)
    if is_traced_any(arguments):
        value, gradient = program(*arguments)
    else:
        arguments = (floats, key, *check_arguments(recipe, hparams, train, valid, key, per_step))
        value, gradient = compiled(program, *arguments)[0](*arguments)
    return Hypergradient(value, assemble(gradient, None))


def check_arguments(
    recipe: Callable[[Any], Recipe],
    hparams: PyTree,
    train: Batch,
    valid: Batch,
    key: Key | RunKeys,
    per_step: Sequence[str],
) -> tuple[Batch, Batch]:
    """The data as JAX arrays; raises for what can be seen before anything is traced."""
    check_run_key(key)
    own, common = _split_per_step(hparams, per_step)
    parts = build_recipe(recipe, _joined(common, own, 0))
    _check_smooth(parts)
    return _check_data(parts, train, valid)


_KEEP = object()


def float_leaves(hparams: PyTree) -> tuple[list[Any], Callable[..., PyTree]]:
    """The floats of a tree, as arrays, and a function that puts others in their place; and something for all else."""
    leaves, treedef = jax.tree.flatten(hparams)
    is_float = [
        jnp.issubdtype(
            np.asarray(leaf).dtype if isinstance(leaf, float) else getattr(leaf, "dtype", bool), jnp.floating
        )
        for leaf in leaves
    ]
    if not any(is_float):
        raise ValueError(f"hparams: expected at least one float to differentiate by, got {hparams!r}")

    def assemble(floats: Sequence[Any], others: Any = _KEEP) -> PyTree:
        rest = iter(floats)
        other = [leaf if others is _KEEP else others for leaf in leaves]
        return treedef.unflatten([next(rest) if flag else leaf for flag, leaf in zip(is_float, other, strict=True)])

    def as_array(leaf: Any) -> Any:
        return np.asarray(leaf, jnp.result_type(float)) if isinstance(leaf, float) else leaf

    return [as_array(leaf) for leaf, flag in zip(leaves, is_float, strict=True) if flag], assemble


def _checkpointed_scan(
    step: Callable[[Any, Any], tuple[Any, None]], state: TrainState, inputs: PyTree, steps: int
) -> TrainState:
    """``lax.scan`` that keeps the state of every ⌈√steps⌉-th step alone, and computes the others again."""
    length = math.isqrt(steps - 1) + 1
    whole = steps // length

    def segment(state: TrainState, inputs: PyTree) -> tuple[TrainState, None]:
        return lax.scan(step, state, inputs)

    def segments(first: int, last: int, count: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[first:last].reshape(count, -1, *leaf.shape[1:]), inputs)

    # Inside of a loop the compiler cannot merge the second computation with the first one.
    again = jax.checkpoint(segment, prevent_cse=False)
    state, _ = lax.scan(again, state, segments(0, whole * length, whole))
    if whole * length < steps:
        state, _ = lax.scan(again, state, segments(whole * length, steps, 1))
    return state


def _split_per_step(hparams: PyTree, names: Sequence[str]) -> tuple[dict[str, PyTree], PyTree]:
    """The hyperparameters that differ from step to step, as arrays, and the others."""
    if isinstance(names, str):
        raise TypeError(f"per_step: expected a list of names, got {names!r}; write [{names!r}]")
    if not names:
        return {}, hparams
    if not isinstance(hparams, Mapping):
        raise TypeError(f"hparams: expected a dictionary, whose names per_step gives, got a {type(hparams).__name__}")
    for name in names:
        if name not in hparams:
            raise ValueError(f"per_step: expected names of {sorted(hparams)}, got {name!r}")
        for leaf in jax.tree.leaves(hparams[name]):
            if np.ndim(leaf) == 0:
                raise ValueError(f"hparams[{name!r}]: expected arrays [steps, ...], a value a step, got {leaf!r}")
    own = {name: jax.tree.map(jnp.asarray, hparams[name]) for name in names}
    return own, {name: value for name, value in hparams.items() if name not in own}


def _joined(common: PyTree, own: Mapping[str, PyTree], step: int | None = None) -> PyTree:
    """The hyperparameters of a step; ``own`` holds its values, or those of all steps if its number is given."""
    if not own:
        return common
    now = own if step is None else jax.tree.map(lambda leaf: leaf[step], dict(own))
    return {**common, **now}


def _check_lengths(own: Mapping[str, PyTree], steps: int) -> None:
    for name, value in own.items():
        for leaf in jax.tree.leaves(value):
            if leaf.shape[0] != steps:
                raise ValueError(
                    f"hparams[{name!r}]: expected arrays of {steps} steps, a value each, got {list(leaf.shape)}"
                )


def _check_smooth(parts: Recipe) -> None:
    for name in ("early_stopping", "plateau"):
        if getattr(parts, name) is not None:
            raise ValueError(
                f"recipe: expected {name}=None: a hypergradient is of a run of fixed length, in which nothing is "
                f"decided; recipe(hp)._replace({name}=None)"
            )


def _check_data(parts: Recipe, train: Batch, valid: Batch | None) -> tuple[Batch, Batch]:
    train, checked = check_run_arguments(parts, train, valid)
    if checked is None:
        raise TypeError("valid: expected a Batch whose loss is differentiated, got None")
    return train, checked
