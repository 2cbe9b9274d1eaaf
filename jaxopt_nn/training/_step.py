"""One training step, one gradient and one update, for a model and a loop of your own."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer

from jaxopt_nn._arguments import check_key, check_number, check_positive_int, plain_array, shown
from jaxopt_nn._dtypes import compute_dtype, promote
from jaxopt_nn.optimizers import frozen_paths
from jaxopt_nn.training._accumulation import accumulate
from jaxopt_nn.training._loss_scale import (
    DynamicLossScale,
    check_loss_scale,
    init_loss_scale,
    scale_of,
    scaled_value_and_grad,
    update_scale,
)
from jaxopt_nn.training._records import StepEnd
from jaxopt_nn.trees import check_same_structure, named_leaves, takes
from jaxopt_nn.types import Array, ArrayLike, Batch, Key, LossFn, NotFinite, Params, PyTree, State, TrainState

__all__ = [
    "Observer",
    "Step",
    "check_optimizer",
    "cond",
    "gradient_fn",
    "init_state",
    "make_observed_step",
    "make_step",
    "update",
]

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    key: Key,
    model_state: State = None,
    loss_scale: ArrayLike | DynamicLossScale | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
        params: the parameters to start from: a pytree of floating-point arrays.
        optimizer: any optimizer of the optax protocol.
        key: the noise key: step t uses ``fold_in(key, t)``.
        model_state: what the model carries but does not train; an empty dictionary by default.
        loss_scale: that of :func:`make_step`; only a dynamic one is carried.

    Returns:
        The state. It holds copies, so a step that donates it does not destroy ``params`` and ``key``.
    """
    check_key("key", key)
    check_optimizer("optimizer", optimizer)
    check_loss_scale(loss_scale)
    for path, leaf in named_leaves(params):
        plain_array(f"params[{path}]", leaf)
    params = jax.tree.map(_without_weak_type, params)
    model_state = {} if model_state is None else jax.tree.map(_without_weak_type, model_state)
    opt_state = jax.tree.map(_without_weak_type, optimizer.init(params))
    notfinite = NotFinite(jnp.int32(0), jnp.int32(0), jnp.asarray(True))
    state = TrainState(jnp.int32(0), params, model_state, opt_state, key, notfinite, init_loss_scale(loss_scale))
    # An optimizer's state may hold the parameters themselves, and a buffer can be donated only once.
    return jax.tree.map(_copy, state)


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    *,
    micro_batches: int = 1,
    nonfinite_limit: ArrayLike | None = None,
    loss_scale: ArrayLike | DynamicLossScale | None = None,
) -> Step:
    """The training step of a loss and an optimizer.

    ``g = ∇ loss(params)``; ``u, opt_state = optimizer.update(g, opt_state, params)``; ``params ← params + u``.

    Args:
        loss_fn: ``loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))``; ``metrics`` is a
            dictionary of arrays.
        optimizer: any optimizer of the optax protocol. If it takes extra arguments, it gets ``value`` (the loss),
            ``grad``, ``value_fn`` (params to loss) and ``grad_fn`` (params to gradient), of this batch and this noise.
        micro_batches: static; how many parts the batch is split into, to bound the memory. Loss, metrics and gradient
            are the means over the parts, weighted by their example weights. If ``loss_fn`` is a weighted mean over
            examples, they are those of the whole batch. The model state goes from part to part, and the optimizer
            makes one update.
        nonfinite_limit: None takes each step, whatever it computes. With an integer >= 1, which may be traced, a step
            whose loss or gradient is not finite changes no bit of parameters, moments, counters and model state, and
            ``state.notfinite`` counts it. After so many such steps in a row, no further step is taken.
        loss_scale: a number > 0, which may be traced, by which the loss is multiplied before it is differentiated; the
            gradient is divided by it. So small gradients do not vanish where a model computes in float16. A
            :class:`DynamicLossScale` finds it, and needs a ``nonfinite_limit``. None does not scale.

    Returns:
        ``step(state, batch) -> (state, metrics)``, a pure function. The new state has the tree, shapes and dtypes of
        the old one. ``metrics`` are those of ``loss_fn``, and ``loss``, ``gradient_norm`` (the global L2 norm of the
        gradient before the optimizer changes it) and, with a ``nonfinite_limit``, ``applied`` (whether the step was
        taken). A compiled program computes only those that are read. Parameters frozen by
        :func:`~jaxopt_nn.optimizers.freeze` keep their bits, and their gradient is not computed.

    Raises:
        TypeError: ``loss_fn`` is no function or returns something else, or ``optimizer`` is no optimizer.
        ValueError: while tracing, if the state would change its tree, a shape or a dtype (naming the path).

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
    inner = make_observed_step(loss_fn, optimizer, micro_batches, nonfinite_limit, loss_scale, None)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        state, metrics, _ = inner(state, batch)
        return state, metrics

    return step


class Observer(NamedTuple):
    """What is computed of a step beside it.

    Attributes:
        observe: of a step that was taken, inside of the branch that takes it.
        skipped: the same tree, for a step that was not taken.
    """

    observe: Callable[[StepEnd], PyTree]
    skipped: PyTree


def make_observed_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    micro_batches: int,
    nonfinite_limit: ArrayLike | None,
    loss_scale: ArrayLike | DynamicLossScale | None,
    observer: Observer | None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array], PyTree]]:
    """As :func:`make_step`; the step also returns what the observer says, or None without one."""
    check_positive_int("micro_batches", micro_batches)
    check_optimizer("optimizer", optimizer)
    if not callable(loss_fn) or not takes(loss_fn, None, None, None, None):
        raise TypeError(f"loss_fn: expected a function (params, model_state, batch, key), got {shown(loss_fn)}")
    if nonfinite_limit is not None:
        check_number("nonfinite_limit", nonfinite_limit, 1, whole=True)
    check_loss_scale(loss_scale)
    dynamic = loss_scale if isinstance(loss_scale, DynamicLossScale) else None
    if dynamic is not None and nonfinite_limit is None:
        raise ValueError("nonfinite_limit: expected an integer >= 1, as a dynamic loss scale skips steps, got None")
    reserved = {"loss", "gradient_norm"} | (set() if nonfinite_limit is None else {"applied"})
    compute_gradient = gradient_fn(_checked(loss_fn, reserved), micro_batches, loss_scale)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array], PyTree]:
        if not isinstance(state, TrainState):
            raise TypeError(f"state: expected a TrainState, as init_state makes one, got {shown(state)}")
        (loss, (model_state, metrics)), gradient = compute_gradient(state.params, state, batch)
        metrics = {**metrics, "loss": loss, "gradient_norm": _global_norm(gradient)}

        def updated() -> tuple[TrainState, PyTree]:
            params, opt_state, added = update(optimizer, compute_gradient, state, batch, loss, gradient)
            new = state._replace(step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state)
            check_same_structure("state", state, new)
            if observer is None:
                return new, None
            in_full = functools.partial(_with_zeros_for_frozen, state)

            def loss_and_gradient(params: Params) -> tuple[Array, Params]:
                (loss, _), gradient = compute_gradient(params, state, batch)
                return loss, in_full(gradient)

            end = StepEnd(
                state.step, batch, loss, state.params, model_state, in_full(gradient), added, loss_and_gradient
            )
            return new, observer.observe(end)

        if nonfinite_limit is None:
            new, observed = updated()
            return new, metrics, observed
        if state.notfinite is None:
            raise ValueError("state.notfinite: expected the counters that init_state makes, got None")
        finite = jnp.isfinite(loss) & jnp.isfinite(metrics["gradient_norm"])
        active = state.notfinite.notfinite_count < jnp.asarray(nonfinite_limit)
        applied, skipped = active & finite, (active & ~finite).astype(jnp.int32)
        counted, loss_scale_after = skipped, state.loss_scale
        if dynamic is not None and loss_scale_after is not None:
            counted = jnp.where(jnp.isfinite(loss) & (loss_scale_after.scale > 1), 0, skipped)
            changed = update_scale(dynamic, loss_scale_after, finite)
            loss_scale_after = jax.tree.map(lambda new, old: jnp.where(active, new, old), changed, loss_scale_after)
        notfinite = NotFinite(
            jnp.where(applied, 0, state.notfinite.notfinite_count + counted),
            state.notfinite.total_notfinite + skipped,
            jnp.where(active, finite, state.notfinite.last_finite),
        )
        # The update is inside of the branch, so that it can write over the old state. A select between the two finished
        # states would copy the old one first. Under vmap the branch becomes a select.
        nothing = None if observer is None else observer.skipped
        state_after, observed = cond(applied, updated, lambda: (state, nothing))
        return (
            state_after._replace(notfinite=notfinite, loss_scale=loss_scale_after),
            {**metrics, "applied": applied},
            observed,
        )

    return step


def check_optimizer(name: str, optimizer: Any) -> None:
    """Raises unless ``optimizer`` is a pair of functions ``(init, update)``, as optax's are."""
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(f"{name}: expected an optax-protocol (init, update) pair, got {optimizer!r}")


def cond(flag: Array, on_true: Callable[[], Any], on_false: Callable[[], Any]) -> Any:
    """``lax.cond``, or only the chosen branch if ``flag`` is not traced: there ``lax.cond`` would compile both."""
    if isinstance(flag, Tracer):
        return lax.cond(flag, on_true, on_false)
    return on_true() if bool(flag) else on_false()


def _checked(loss_fn: LossFn, reserved: set[str]) -> LossFn:
    """The same function, which raises ``TypeError`` or ``ValueError`` if it returns something wrong."""

    def checked(params: Params, model_state: State, batch: Batch, key: Key) -> Any:
        result: Any = loss_fn(params, model_state, batch, key)
        pair = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple) and len(result[1]) == 2
        if not pair or not isinstance(result[1][1], Mapping):
            raise TypeError(
                f"loss_fn: expected it to return (loss, (model_state, metrics)), metrics a dictionary, got {result!r}"
            )
        loss, (model_state, metrics) = result
        loss = jnp.asarray(loss)
        if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
            raise TypeError(f"loss_fn: expected a loss that is a float scalar, got {loss.dtype}{list(loss.shape)}")
        if clash := sorted(reserved & set(metrics)):
            raise ValueError(f"loss_fn: expected other names for its metrics than {clash}, which are the step's own")
        return loss, (
            model_state,
            {name: jnp.asarray(plain_array(f"metrics[{name!r}]", value)) for name, value in metrics.items()},
        )

    return checked


def gradient_fn(
    loss_fn: LossFn, micro_batches: int, loss_scale: ArrayLike | DynamicLossScale | None
) -> Callable[[Params, TrainState, Batch], Any]:
    """``(params, state, batch) -> ((loss, (model_state, metrics)), gradient)``, the gradient of trained leaves only."""

    def compute_gradient(params: Params, state: TrainState, batch: Batch) -> Any:
        trained, assemble = _split_trained(params, frozen_paths(state.opt_state))

        def loss_of(trained: list[Array], model_state: State, batch: Batch, key: Key) -> Any:
            # Made anew, since the variables of Flax NNX may be written only in the trace in which they were made.
            model_state = jax.tree.map(lambda leaf: leaf, model_state)
            return loss_fn(assemble(trained), model_state, batch, key)

        scale = scale_of(loss_scale, state)
        of_one_part = (
            jax.value_and_grad(loss_of, has_aux=True) if scale is None else scaled_value_and_grad(loss_of, scale)
        )
        gradient_of = accumulate(of_one_part, micro_batches)
        return gradient_of(trained, state.model_state, batch, jax.random.fold_in(state.key, state.step))

    return compute_gradient


def update(
    optimizer: optax.GradientTransformation,
    compute_gradient: Callable[[Params, TrainState, Batch], Any],
    state: TrainState,
    batch: Batch,
    loss: Array,
    trained_gradient: list[Array],
) -> tuple[Params, PyTree, PyTree]:
    """The parameters and the optimizer's state after its update, and what it added to the parameters."""
    frozen = frozen_paths(state.opt_state)
    assemble = _split_trained(state.params, frozen)[1]
    with_zeros_for_frozen = functools.partial(_with_zeros_for_frozen, state)

    def value_fn(params: Params, grad_fn: object = None) -> Array:
        # optax's line searches raise for an extra argument that value_fn does not take, so it takes grad_fn.
        del grad_fn
        return compute_gradient(params, state, batch)[0][0]

    gradient = with_zeros_for_frozen(trained_gradient)
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        gradient,
        state.opt_state,
        state.params,
        value=loss,
        grad=gradient,
        value_fn=value_fn,
        grad_fn=lambda params: with_zeros_for_frozen(compute_gradient(params, state, batch)[1]),
    )
    return assemble(_split_trained(optax.apply_updates(state.params, updates), frozen)[0]), opt_state, updates


def _with_zeros_for_frozen(state: TrainState, gradient: list[Array]) -> PyTree:
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    return _split_trained(zeros, frozen_paths(state.opt_state))[1](gradient)


def _split_trained(params: Params, frozen: frozenset[str]) -> tuple[list[Array], Callable[[list[Array]], Params]]:
    """The leaves that are trained, and a function that puts new values in their place."""
    named, treedef = named_leaves(params), jax.tree.structure(params)

    def assemble(trained: list[Array]) -> Params:
        rest = iter(trained)
        return treedef.unflatten([leaf if path in frozen else next(rest) for path, leaf in named])

    return [leaf for path, leaf in named if path not in frozen], assemble


def _global_norm(tree: PyTree) -> Array:
    """The global L2 norm of a pytree, accumulated in float32 at least."""
    squares = [jnp.sum(jnp.square(leaf.astype(compute_dtype(leaf)))) for leaf in jax.tree.leaves(tree)]
    dtype = promote(jnp.float32, *(square.dtype for square in squares))
    total = sum((square.astype(dtype) for square in squares), jnp.zeros((), dtype))
    zero = total == 0  # the root has no derivative at 0; there 0 is taken, the derivative of the squares
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, total)))


def _copy(leaf: Array) -> Array:
    return leaf if isinstance(leaf, Tracer) else jnp.array(leaf, copy=True)


def _without_weak_type(leaf: Any) -> Array:
    """The leaf as an array without a weak type, so that the first step does not change it."""
    return lax.convert_element_type(leaf, jnp.asarray(leaf).dtype)
