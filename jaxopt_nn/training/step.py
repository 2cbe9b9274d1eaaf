"""One training step: one gradient, one update. The lower floor, for a model and a loop of one's own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxopt_nn._arguments import check_key
from jaxopt_nn.trees import check_same_structure
from jaxopt_nn.types import Array, Batch, Key, LossFn, Params, PyTree, State, TrainState

__all__ = ["GuardedStep", "Step", "guard_step", "init_state", "make_step"]

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]
GuardedStep = Callable[[tuple[TrainState, Array], Batch], tuple[tuple[TrainState, Array], dict[str, Array]]]


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


def make_step(loss_fn: LossFn, optimizer: optax.GradientTransformation) -> Step:
    """The training step of a loss and an optimizer.

    ``g = ∇ loss(params)``; ``u, opt_state = optimizer.update(g, opt_state, params)``; ``params ← params + u``.

    Args:
        loss_fn: ``loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))``; ``metrics`` is a
            dictionary of arrays.
        optimizer: any optimizer of the optax protocol. Those that take extra arguments get ``value=loss``.

    Returns:
        ``step(state, batch) -> (state, metrics)``, a pure function. The new state equals the old in tree, shapes and
        dtypes. ``metrics`` are those of ``loss_fn`` with ``loss`` and ``gradient_norm`` (the global L2 norm of the
        gradient before the optimizer sees it); a compiled program computes only what is read of them.

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
    update = optax.with_extra_args_support(optimizer).update
    gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, (model_state, metrics)), gradients = gradient_fn(state.params, state.model_state, batch, key)
        updates, opt_state = update(gradients, state.opt_state, state.params, value=loss)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, model_state, opt_state, state.key)
        check_same_structure("state", state, new)
        return new, {**metrics, "loss": loss, "gradient_norm": _norm(gradients)}

    return step


def guard_step(step: Step) -> GuardedStep:
    """The same step, of whose state nothing changes from the first one on whose loss or gradient is not finite.

    Returns:
        ``guarded((state, fine), batch) -> ((state, fine), metrics)``, where the bool scalar ``fine`` is true at first.
    """

    def guarded(carry: tuple[TrainState, Array], batch: Batch) -> tuple[tuple[TrainState, Array], dict[str, Array]]:
        state, fine = carry
        new, metrics = step(state, batch)
        fine &= jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        return (jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, state), fine), metrics

    return guarded


def _norm(tree: PyTree) -> Array:
    """The global L2 norm of a pytree, accumulated in float32 at least."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)))) for leaf in leaves]
    return jnp.sqrt(sum(squares, start=jnp.float32(0)))


def _strong(leaf: Any) -> Array:
    """The leaf as an array without a weak type, so that the first step does not change it."""
    return lax.convert_element_type(leaf, jnp.asarray(leaf).dtype)
