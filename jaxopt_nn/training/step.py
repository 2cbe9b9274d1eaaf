"""One training step: one gradient, one update. The lower floor, for a model and a loop of one's own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxopt_nn._arguments import check_key, check_number, check_positive_int
from jaxopt_nn.optimizers import frozen_paths
from jaxopt_nn.training.accumulation import accumulate
from jaxopt_nn.trees import check_same_structure, named_leaves
from jaxopt_nn.types import Array, ArrayLike, Batch, Key, LossFn, Params, PyTree, State, TrainState

__all__ = ["Guard", "GuardedStep", "Step", "init_guard", "init_state", "make_guarded_step", "make_step"]

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
GuardedStep = Callable[[tuple[TrainState, "Guard"], Batch], tuple[tuple[TrainState, "Guard"], dict[str, Array]]]


def init_state(
    params: Params, optimizer: optax.GradientTransformation, key: Key, model_state: State = None
) -> TrainState:
    """The state before the first step.

    Args:
        params: the parameters to start from: a pytree of floating-point arrays.
        optimizer: any optimizer of the optax protocol.
        key: the noise key: step t uses ``fold_in(key, t)``.
        model_state: what the model carries but does not train; an empty dictionary by default.
    """
    check_key("key", key)
    params = jax.tree.map(_strong, params)
    model_state = {} if model_state is None else jax.tree.map(_strong, model_state)
    return TrainState(jnp.int32(0), params, model_state, jax.tree.map(_strong, optimizer.init(params)), key)


def make_step(loss_fn: LossFn, optimizer: optax.GradientTransformation, *, micro_batches: int = 1) -> Step:
    """The training step of a loss and an optimizer.

    ``g = ∇ loss(params)``; ``u, opt_state = optimizer.update(g, opt_state, params)``; ``params ← params + u``.

    Args:
        loss_fn: ``loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))``; ``metrics`` is a
            dictionary of arrays.
        optimizer: any optimizer of the optax protocol. Those that take extra arguments get ``value`` (the loss),
            ``grad``, ``value_fn`` (params to loss) and ``grad_fn`` (params to gradient), on this batch with this noise.
        micro_batches: static; how many parts the batch is split into, one after another, to bound the memory. Loss,
            metrics and gradient are their means, weighted by the parts' example weights, and so those of the whole
            batch if ``loss_fn`` is a weighted mean over examples; the model state goes from part to part; the
            optimizer sees one update.

    Returns:
        ``step(state, batch) -> (state, metrics)``, a pure function. The new state equals the old in tree, shapes and
        dtypes. ``metrics`` are those of ``loss_fn`` with ``loss`` and ``gradient_norm`` (the global L2 norm of the
        gradient before the optimizer sees it); a compiled program computes only what is read of them. Parameters
        frozen by :func:`~jaxopt_nn.optimizers.freeze` keep their bits, and their gradient is not computed.

    Raises:
        ValueError: while tracing, naming the path, if the state would change its tree, a shape or a dtype.

    >>> import jax, jax.numpy as jnp
    >>> from jaxopt_nn import optimizers
    >>> from jaxopt_nn.types import Batch
    >>> def loss_fn(params, model_state, batch, key):
    ...     return jnp.mean((batch.x @ params["w"] - batch.y) ** 2), (model_state, {})
    >>> optimizer = optimizers.sgd(0.1)
    >>> state = init_state({"w": jnp.zeros(2)}, optimizer, jax.random.key(0))
    >>> step = jax.jit(make_step(loss_fn, optimizer))
    >>> state, metrics = step(state, Batch(jnp.eye(2), jnp.ones(2)))
    >>> state.params["w"].tolist(), float(metrics["loss"])
    ([0.10000000149011612, 0.10000000149011612], 1.0)
    """
    evaluate, advance = _halves(loss_fn, optimizer, micro_batches)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        found = evaluate(state, batch)
        return advance(state, batch, found), found.metrics

    return step


class Guard(NamedTuple):
    """What :func:`make_guarded_step` counts.

    Attributes:
        in_a_row: int32 scalar, the bad steps since the last good one; at the limit nothing passes any more.
        skipped: int32 scalar, all bad steps.
    """

    in_a_row: Array
    skipped: Array


def init_guard() -> Guard:
    """Nothing bad so far."""
    return Guard(jnp.int32(0), jnp.int32(0))


def make_guarded_step(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, limit: ArrayLike = 1, *, micro_batches: int = 1
) -> GuardedStep:
    """The same step, but where loss or gradient is not finite nothing of the state changes: it is skipped.

    Parameters, moments, counters and model state stay as they were, to the bit. After ``limit`` such steps in a row all
    that follow are skipped too.

    Args:
        loss_fn, optimizer, micro_batches: as in :func:`make_step`.
        limit: an integer >= 1; may be traced. 1 ends at the first one.

    Returns:
        ``guarded((state, guard), batch) -> ((state, guard), metrics)``, to begin with :func:`init_guard`; ``metrics``
        has ``applied`` besides: whether the step was taken.
    """
    check_number("limit", limit, 1)
    evaluate, advance = _halves(loss_fn, optimizer, micro_batches)

    def guarded(carry: tuple[TrainState, Guard], batch: Batch) -> tuple[tuple[TrainState, Guard], dict[str, Array]]:
        state, guard = carry
        found = evaluate(state, batch)
        good = jnp.isfinite(found.metrics["loss"]) & jnp.isfinite(found.metrics["gradient_norm"])
        on = guard.in_a_row < jnp.asarray(limit)
        applied, bad = on & good, on & ~good
        in_a_row = jnp.where(applied, 0, guard.in_a_row + bad)
        # The update stands inside of the branch: there it writes over the old state, which a choice between two
        # finished states would have to copy first. Under vmap it becomes a choice.
        state = lax.cond(applied, lambda: advance(state, batch, found), lambda: state)
        return (state, Guard(in_a_row, guard.skipped + bad)), {**found.metrics, "applied": applied}

    return guarded


class _Found(NamedTuple):
    """What the first half of a step finds.

    Attributes:
        gradient: of the leaves that are trained.
        model_state: after the forward pass.
        metrics: as a step returns them.
    """

    gradient: list[Array]
    model_state: State
    metrics: dict[str, Array]


def _halves(
    loss_fn: LossFn, optimizer: optax.GradientTransformation, micro_batches: int
) -> tuple[Callable[[TrainState, Batch], _Found], Callable[[TrainState, Batch, _Found], TrainState]]:
    """A step in two: the gradient at the old state, and the new state that the optimizer makes of it."""
    check_positive_int("micro_batches", micro_batches)
    update = optax.with_extra_args_support(optimizer).update

    def differentiate(params: Params, state: TrainState, batch: Batch) -> Any:
        trained, assemble = _split(params, frozen_paths(state.opt_state))

        def loss_of(trained: list[Array], model_state: State, batch: Batch, key: Key) -> Any:
            return loss_fn(assemble(trained), model_state, batch, key)

        gradient_of = accumulate(jax.value_and_grad(loss_of, has_aux=True), micro_batches)
        return gradient_of(trained, state.model_state, batch, jax.random.fold_in(state.key, state.step))

    def evaluate(state: TrainState, batch: Batch) -> _Found:
        (loss, (model_state, metrics)), gradient = differentiate(state.params, state, batch)
        return _Found(gradient, model_state, {**metrics, "loss": loss, "gradient_norm": _norm(gradient)})

    def advance(state: TrainState, batch: Batch, found: _Found) -> TrainState:
        frozen = frozen_paths(state.opt_state)
        assemble = _split(state.params, frozen)[1]

        def whole(gradient: list[Array]) -> PyTree:
            return _split(jax.tree.map(jnp.zeros_like, state.params), frozen)[1](gradient)

        def value_fn(params: Params, grad_fn: object = None) -> Array:
            # optax's line searches refuse extra arguments that value_fn does not take: so it takes the other one.
            del grad_fn
            return differentiate(params, state, batch)[0][0]

        gradient = whole(found.gradient)
        extra = {
            "value": found.metrics["loss"],
            "grad": gradient,
            "value_fn": value_fn,
            "grad_fn": lambda params: whole(differentiate(params, state, batch)[1]),
        }
        updates, opt_state = update(gradient, state.opt_state, state.params, **extra)
        params = assemble(_split(optax.apply_updates(state.params, updates), frozen)[0])
        new = TrainState(state.step + 1, params, found.model_state, opt_state, state.key)
        check_same_structure("state", state, new)
        return new

    return evaluate, advance


def _split(params: Params, frozen: frozenset[str]) -> tuple[list[Array], Callable[[list[Array]], Params]]:
    """The leaves that are trained, and how to put others in their place."""
    named, treedef = named_leaves(params), jax.tree.structure(params)

    def assemble(trained: list[Array]) -> Params:
        rest = iter(trained)
        return treedef.unflatten([leaf if path in frozen else next(rest) for path, leaf in named])

    return [leaf for path, leaf in named if path not in frozen], assemble


def _norm(tree: PyTree) -> Array:
    """The global L2 norm of a pytree, accumulated in float32 at least."""
    total = jnp.float32(0)
    for leaf in jax.tree.leaves(tree):
        total += jnp.sum(jnp.square(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))))
    zero = total == 0  # where the root has no derivative: there it is 0, as that of the squares
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, total)))


def _strong(leaf: Any) -> Array:
    """The leaf as an array without a weak type, so that the first step does not change it."""
    return lax.convert_element_type(leaf, jnp.asarray(leaf).dtype)
