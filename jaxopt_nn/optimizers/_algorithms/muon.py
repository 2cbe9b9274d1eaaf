"""Muon: orthogonalized momentum for matrices, and another optimizer for everything else."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxopt_nn._arguments import check_bool, check_positive_int
from jaxopt_nn._dtypes import cast
from jaxopt_nn.optimizers._algorithms.adam import adam
from jaxopt_nn.optimizers._numerics.numbers import as_decay, as_number, bias_correction, next_count, safe_sqrt
from jaxopt_nn.optimizers._numerics.transform import Convention, check_convention, map_leaves, moments_like, transform
from jaxopt_nn.optimizers._transforms.decay import add_decayed_weights
from jaxopt_nn.optimizers._transforms.learning_rate import scale_by_learning_rate
from jaxopt_nn.optimizers._wrappers.groups import partition
from jaxopt_nn.optimizers._wrappers.inside import as_optimizer
from jaxopt_nn.schedules import Schedule
from jaxopt_nn.trees import Mask, check_mask, every_leaf, named_leaves, select
from jaxopt_nn.types import Array, ArrayLike, Params, PyTree

__all__ = ["MuonState", "muon", "scale_by_muon"]

_QUINTIC = (3.4445, -4.7750, 2.0315)


class MuonState(NamedTuple):
    """State of :func:`scale_by_muon`.

    Attributes:
        count: int32 scalar, the number of updates done.
        mu: like the parameters, at least float32: the moving average of the gradients ("keras": their decayed sum).
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mu: PyTree


def muon(
    learning_rate: ArrayLike | Schedule,
    momentum: ArrayLike = 0.95,
    eps: ArrayLike | None = None,
    weight_decay: ArrayLike | None = None,
    *,
    matrices: Mask | None = None,
    others: optax.GradientTransformation | None = None,
    rms: ArrayLike | None = None,
    nesterov: bool = True,
    steps: int = 5,
    convention: Convention = "optax",
) -> optax.GradientTransformationExtraArgs:
    """Muon: each matrix moves by its momentum, with all singular values set to (about) 1.

    ``m ← β·m + (1-β)·g``, ``u = β·m + (1-β)·g`` (Nesterov) or m, then ``θ ← θ - lr · (s · orthogonal(u) + λ·θ)`` with
    ``s = √max(1, fan_out/fan_in)``, or ``rms · √max(fan_in, fan_out)``. See :func:`scale_by_muon` for the conventions.

    Args:
        learning_rate: scalar >= 0, may be traced; or a schedule.
        momentum: β, in [0, 1); may be traced.
        eps: ε > 0, may be traced; None for the convention's: 1e-8 ("optax"), 1e-7.
        weight_decay: λ >= 0, of the matrices, may be traced; None (static) for none.
        matrices: static; the leaves to orthogonalize, see :mod:`jaxopt_nn.trees`. ``[..., out]`` counts as a matrix
            ``[fan_in, out]``. None for all leaves of two axes. Embeddings and the last layer are usually left out.
        others: the optimizer of the other leaves; None for ``adam(learning_rate)``.
        rms: the root mean square of a matrix's update, may be traced. 0.2 is about Adam's, and the default of Keras.
            None (static) for the first s.
        nesterov: static; whether to look ahead.
        steps: static; iterations of the orthogonalization.
        convention: static; the formula of the momentum.

    Returns:
        The optimizer.

    Raises:
        ValueError: a number is out of its range, the convention unknown; at ``init``, the mask selects no leaf, or one
            of fewer than two axes.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = muon(1.0, steps=12)
        >>> params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
        >>> gradients = {"kernel": jnp.diag(jnp.array([5.0, 0.1])), "bias": jnp.ones(2)}
        >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        >>> bool((abs(-jnp.diag(updates["kernel"]) - 1) < 0.35).all())  # 5 and 0.1 alike: about 1
        True

    "optax" equals ``optax.contrib.muon``, except that by default the other leaves go to Adam here, and to Nadam there.
    Differs from ``torch.optim.Muon``, whose iteration is in bfloat16, and whose default λ is 0.1.

    References:
        Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.
        Liu et al., Muon is scalable for LLM training, 2025, section 2.2 (rms).
    """
    rest = as_optimizer("others", adam(learning_rate) if others is None else others)
    scale = scale_by_muon(momentum, eps, rms=rms, nesterov=nesterov, steps=steps, convention=convention)
    decays = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask=every_leaf)]
    chain = optax.chain(scale, *decays, scale_by_learning_rate(learning_rate))
    if matrices is not None:
        check_mask("matrices", matrices)

    def label(tree: PyTree) -> list[str]:
        leaves = jax.tree.leaves(tree)
        chosen = [jnp.ndim(x) == 2 for x in leaves] if matrices is None else select("matrices", matrices, tree)
        return ["matrices" if matrix else "others" for matrix in chosen]

    return partition({"matrices": chain, "others": rest}, label)


def scale_by_muon(
    momentum: ArrayLike = 0.95,
    eps: ArrayLike | None = None,
    *,
    rms: ArrayLike | None = None,
    nesterov: bool = True,
    steps: int = 5,
    coefficients: tuple[ArrayLike, ArrayLike, ArrayLike] = _QUINTIC,
    convention: Convention = "optax",
) -> optax.GradientTransformation:
    """Replaces the gradient of a matrix by its momentum, orthogonalized by a Newton-Schulz iteration.

    ``X ← u / (‖u‖ + ε)`` (Frobenius), then, ``steps`` times, ``X ← a·X + (b·A + c·A²)·X`` with ``A = X·Xᵀ``; times
    ``√max(1, fan_out/fan_in)``, or ``rms · √max(fan_in, fan_out)``. The momentum u is, with Nesterov's,

    - "optax": ``β·m/(1-β^(t+1)) + (1-β)·g/(1-βᵗ)`` with ``m ← β·m + (1-β)·g``;
    - "torch": ``β·m + (1-β)·g``, and ``max(‖u‖, ε)`` in the place of ``‖u‖ + ε``;
    - "keras": ``g + β·m`` with ``m ← β·m + g``: as torch's up to ε, since only directions count.

    Args:
        momentum: β, in [0, 1); may be traced.
        eps: ε > 0, may be traced; None for the convention's: 1e-8 ("optax"), 1e-7.
        rms: scalar >= 0, may be traced; None (static) for the first factor.
        nesterov: static; whether to look ahead.
        steps: static; iterations.
        coefficients: a, b and c; may be traced.
        convention: static; the formula of the momentum.

    Returns:
        The transform. Its leaves must have at least two axes: ``[..., out]`` is a matrix ``[fan_in, fan_out]``. If
        any number of a gradient is not finite, its whole matrix becomes NaN.

    Raises:
        ValueError: a number is out of its range, the convention unknown; at ``init``, a leaf has fewer than two axes.

    Example:
        >>> import jax.numpy as jnp
        >>> transform = scale_by_muon(rms=1.0)
        >>> state = transform.init(jnp.zeros((3, 1)))
        >>> updates, _ = transform.update(jnp.array([[3.0], [0.0], [4.0]]), state)
        >>> round(float(updates[1, 0]), 5), bool(abs(updates[2, 0] / updates[0, 0] - 4 / 3) < 1e-4)
        (0.0, True)

    References:
        Jordan et al., 2024. Bernstein and Newhouse, Old optimizer, new norm, 2024, appendix A.
    """
    check_convention(convention)
    check_positive_int("steps", steps)
    check_bool("nesterov", nesterov)
    beta = as_decay("momentum", momentum)
    epsilon = as_number("eps", (1e-8 if convention == "optax" else 1e-7) if eps is None else eps, open_low=True)
    size = None if rms is None else as_number("rms", rms)
    quintic = [as_number(f"coefficients[{i}]", number, -math.inf) for i, number in enumerate(coefficients)]

    def init(params: Params) -> MuonState:
        for path, leaf in named_leaves(params):
            if jnp.ndim(leaf) < 2:
                raise ValueError(f"params[{path}]: expected a matrix, two axes or more, got shape {jnp.shape(leaf)}")
        return MuonState(jnp.zeros((), jnp.int32), moments_like(params))

    def orthogonal(matrix: Array) -> Array:
        tall = matrix.shape[0] > matrix.shape[1]
        x, dtype = matrix.T if tall else matrix, matrix.dtype
        norm, least = safe_sqrt(jnp.sum(x * x)), cast(epsilon, dtype)
        x = x / (jnp.maximum(norm, least) if convention == "torch" else norm + least)
        a, b, c = (cast(number, dtype) for number in quintic)
        for _ in range(steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.T if tall else x

    def update(updates: PyTree, state: MuonState, params: Params | None = None) -> tuple[PyTree, MuonState]:
        del params
        count = next_count(state.count)

        def leaf(g: Array, m: Array) -> tuple[Any, ...]:
            dtype, exact = m.dtype, g.astype(m.dtype)
            decay, share = cast(beta.rate, dtype), cast(1.0 if convention == "keras" else beta.complement, dtype)
            m = decay * m + share * exact
            u = m
            if nesterov and convention == "optax":
                ahead = bias_correction(beta, next_count(count), dtype)
                u = decay * m / ahead + share * exact / bias_correction(beta, count, dtype)
            elif nesterov:
                u = decay * m + share * exact
            elif convention == "optax":
                u = m / bias_correction(beta, count, dtype)
            matrix = _gathered(u).reshape(-1, g.shape[-1])
            fan_in, fan_out = matrix.shape
            factor = cast(math.sqrt(max(1.0, fan_out / fan_in)), dtype)
            if size is not None:
                factor = cast(size, dtype) * cast(math.sqrt(max(fan_in, fan_out)), dtype)
            return _sharded_as(g, (factor * orthogonal(matrix)).reshape(g.shape).astype(g.dtype)), m

        updates, mu = map_leaves(leaf, 2, updates, state.mu)
        return updates, MuonState(count, mu)

    return transform(init, update)


def _gathered(matrix: Array) -> Array:
    """The array unsharded, if its type says that it is sharded: else its product with its transpose has no type."""
    spec = jax.typeof(matrix).sharding.spec
    return matrix if all(part is None for part in spec) else jax.reshard(matrix, jax.P(*[None] * len(spec)))


def _sharded_as(other: Array, matrix: Array) -> Array:
    spec = jax.typeof(other).sharding.spec
    return matrix if all(part is None for part in spec) else jax.reshard(matrix, spec)
