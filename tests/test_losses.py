import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from sklearn.metrics import mean_pinball_loss

from jaxopt_nn import losses
from jaxopt_nn.losses._targets import activation_before, check_targets

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(6, 5)).astype(np.float32) * 3
LABELS = np.array([0, 4, 2, 2, 1, 3])
ROWS = scipy.special.softmax(RNG.normal(size=(6, 5)), axis=-1).astype(np.float32)
BITS = (RNG.random((6, 5)) < 0.5).astype(np.float32)
VALUES = RNG.normal(size=(6, 5)).astype(np.float32) * 2
COUNTS = RNG.poisson(2.0, (6, 5)).astype(np.float32)
CLASS_WEIGHT = np.array([1.0, 0.5, 2.0, 0.0, 3.0], np.float32)
PICKED = scipy.special.softmax(LOGITS.astype(float), axis=-1)[np.arange(6), LABELS]

# name, loss, outputs, targets, what optax says of each element before it is averaged over an example
LOSSES = [
    (
        "softmax_labels",
        losses.softmax_cross_entropy,
        LOGITS,
        LABELS,
        lambda: optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS),
    ),
    ("softmax_rows", losses.softmax_cross_entropy, LOGITS, ROWS, lambda: optax.softmax_cross_entropy(LOGITS, ROWS)),
    (
        "softmax_smooth",
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.2),
        LOGITS,
        LABELS,
        lambda: optax.softmax_cross_entropy(LOGITS, optax.smooth_labels(jax.nn.one_hot(LABELS, 5), 0.2)),
    ),
    (
        "softmax_rows_smooth",
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.2),
        LOGITS,
        ROWS,
        lambda: optax.softmax_cross_entropy(LOGITS, optax.smooth_labels(ROWS, 0.2)),
    ),
    ("sigmoid", losses.sigmoid_cross_entropy, LOGITS, BITS, lambda: optax.sigmoid_binary_cross_entropy(LOGITS, BITS)),
    (
        "sigmoid_soft",
        losses.sigmoid_cross_entropy,
        LOGITS,
        ROWS,
        lambda: optax.sigmoid_binary_cross_entropy(LOGITS, ROWS),
    ),
    (
        "sigmoid_vector",
        losses.sigmoid_cross_entropy,
        LOGITS[:, 0],
        BITS[:, 0],
        lambda: optax.sigmoid_binary_cross_entropy(LOGITS[:, 0], BITS[:, 0]),
    ),
    ("squared", losses.mean_squared_error, LOGITS, VALUES, lambda: optax.squared_error(LOGITS, VALUES)),
    ("huber", losses.huber, LOGITS, VALUES, lambda: optax.huber_loss(LOGITS, VALUES)),
    (
        "huber_wide",
        functools.partial(losses.huber, delta=2.5),
        LOGITS,
        VALUES,
        lambda: optax.huber_loss(LOGITS, VALUES, delta=2.5),
    ),
    (
        "softmax_weighted",
        functools.partial(losses.softmax_cross_entropy, class_weight=CLASS_WEIGHT),
        LOGITS,
        LABELS,
        lambda: CLASS_WEIGHT[LABELS] * optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS),
    ),
    (
        "sigmoid_weighted",
        functools.partial(losses.sigmoid_cross_entropy, positive_weight=3.0),
        LOGITS,
        BITS,
        lambda: (1 + 2 * BITS) * optax.sigmoid_binary_cross_entropy(LOGITS, BITS),
    ),
    (
        "sigmoid_focal",
        functools.partial(losses.sigmoid_focal, gamma=1.5, alpha=0.3),
        LOGITS,
        BITS,
        lambda: optax.losses.sigmoid_focal_loss(LOGITS, BITS, alpha=0.3, gamma=1.5),
    ),
    (
        "softmax_focal",
        losses.softmax_focal,
        LOGITS,
        LABELS,
        lambda: (1 - PICKED) ** 2 * -np.log(PICKED),
    ),
    (
        "softmax_kl",
        losses.kl_divergence,
        LOGITS,
        ROWS,
        lambda: optax.losses.kl_divergence(jax.nn.log_softmax(LOGITS), ROWS),
    ),
    ("hinge", losses.hinge, LOGITS, BITS, lambda: optax.losses.hinge_loss(LOGITS, 2 * BITS - 1)),
    (
        "ordinal",
        losses.ordinal,
        LOGITS,
        LABELS,
        lambda: optax.sigmoid_binary_cross_entropy(LOGITS, LABELS[:, None] > np.arange(5)).sum(1),
    ),
    ("absolute", losses.mean_absolute_error, LOGITS, VALUES, lambda: np.abs(LOGITS - VALUES)),
    (
        "quantile",
        functools.partial(losses.quantile, quantile=0.9),
        LOGITS,
        VALUES,
        lambda: [mean_pinball_loss(t, o, alpha=0.9) for t, o in zip(VALUES, LOGITS, strict=True)],
    ),
    (
        "quantiles",
        functools.partial(losses.quantile, quantile=(0.1, 0.3, 0.5, 0.7, 0.9)),
        LOGITS,
        VALUES[:, 0],
        lambda: [
            np.mean([mean_pinball_loss([t], [o], alpha=q) for o, q in zip(row, (0.1, 0.3, 0.5, 0.7, 0.9), strict=True)])
            for t, row in zip(VALUES[:, 0], LOGITS, strict=True)
        ],
    ),
    (
        "gaussian",
        losses.gaussian_nll,
        LOGITS[:, :4].reshape(6, 2, 2),
        VALUES[:, :2],
        lambda: -scipy.stats.norm.logpdf(VALUES[:, :2], LOGITS[:, :4:2], np.exp(LOGITS[:, 1:4:2] / 2)),
    ),
    (
        "poisson",
        losses.poisson_nll,
        LOGITS,
        COUNTS,
        lambda: -scipy.stats.poisson.logpmf(COUNTS, np.exp(LOGITS)) - scipy.special.gammaln(COUNTS + 1),
    ),
]
GROWING = ("gaussian", "poisson")  # the exponential of an output is part of them
TABLE = pytest.mark.parametrize(("name", "loss", "outputs", "targets", "expected"), LOSSES, ids=[r[0] for r in LOSSES])


@TABLE
def test_values_are_those_of_optax(name, loss, outputs, targets, expected):
    del name
    got = loss(outputs, targets)
    assert got.shape == (6,) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.asarray(expected()).reshape(6, -1).mean(1), rtol=2e-6, atol=1e-7)


@TABLE
def test_compiled_and_swept_equal_eager_and_one_trace(name, loss, outputs, targets, expected):
    del name, expected
    traces = []

    @jax.jit
    def compiled(o, t):
        traces.append(1)
        return loss(o, t)

    np.testing.assert_allclose(compiled(outputs, targets), loss(outputs, targets), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(compiled(-outputs, targets), loss(-outputs, targets), rtol=1e-6, atol=1e-7)
    assert len(traces) == 1
    lanes = jax.vmap(loss, in_axes=(0, None))(jnp.stack([outputs, -outputs]), targets)
    np.testing.assert_allclose(lanes[1], loss(-outputs, targets), rtol=1e-6, atol=1e-7)


@TABLE
def test_gradients_are_central_differences(name, loss, outputs, targets, expected):
    del name, expected
    with jax.enable_x64(True):
        o = jnp.asarray(outputs, jnp.float64)
        total = jax.jit(lambda o: jnp.sum(jnp.arange(1.0, 7.0) * loss(o, targets)))
        assert loss(o, targets).dtype == jnp.float64
        gradient, h = np.asarray(jax.grad(total)(o)), 1e-5
        for index in np.ndindex(*o.shape):
            difference = (total(o.at[index].add(h)) - total(o.at[index].add(-h))) / (2 * h)
            np.testing.assert_allclose(gradient[index], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("classes", [2, 15, 16, 40])
def test_a_few_classes_and_many_have_all_derivatives_of_optax(classes, lanes):
    """On a CPU a few are computed along the examples, with a derivative rule of their own."""
    rng = np.random.default_rng(classes)
    logits, labels = 3 * rng.normal(size=(3, 4, classes)), rng.integers(0, classes, 4)
    rows = scipy.special.softmax(rng.normal(size=(4, classes)), axis=-1)
    weights = np.arange(1.0, 5.0)

    def every_derivative(loss, targets):
        def total(z):
            return weights @ loss(z, targets)

        functions = total, jax.grad(total), jax.jacfwd(jax.grad(total)), jax.jacrev(jax.jacfwd(total))
        every = jax.vmap if lanes else (lambda function: lambda z: function(z[0]))
        return [jax.jit(every(function))(logits) for function in functions]

    with jax.enable_x64(True):
        for targets, peer in (
            (labels, optax.softmax_cross_entropy_with_integer_labels),
            (rows, optax.softmax_cross_entropy),
        ):
            found, expected = (every_derivative(loss, targets) for loss in (losses.softmax_cross_entropy, peer))
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), found, expected)


@TABLE
def test_extreme_outputs_are_finite(name, loss, outputs, targets, expected):
    del expected
    for factor in (5.0, -5.0, 0.0) if name in GROWING else (1e4, -1e4, 0.0):
        value, gradient = jax.value_and_grad(lambda o: jnp.sum(loss(o, targets)))(outputs * np.float32(factor))
        assert np.isfinite(value) and np.isfinite(gradient).all()


@TABLE
def test_low_precision_is_computed_in_float32(name, loss, outputs, targets, expected):
    del expected
    dtype = jnp.float16 if "soft" in name else jnp.bfloat16
    low = jnp.asarray(outputs, dtype)
    got = loss(low, targets)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, loss(low.astype(jnp.float32), targets))


@TABLE
def test_targets_do_not_widen_the_loss(name, loss, outputs, targets, expected):
    del name, expected
    with jax.enable_x64(True):
        assert loss(jnp.asarray(outputs, jnp.float32), np.asarray(targets, np.result_type(targets, "i8"))).dtype == "f4"


@TABLE
def test_axes_behind_the_first_are_averaged(name, loss, outputs, targets, expected):
    """``[2, 3, ...]`` has as losses the means of three of those of ``[6, ...]``."""
    del name, expected
    got = loss(outputs.reshape(2, 3, *outputs.shape[1:]), targets.reshape(2, 3, *targets.shape[1:]))
    np.testing.assert_allclose(got, loss(outputs, targets).reshape(2, 3).mean(1), rtol=1e-6)


@TABLE
def test_outputs_must_be_floats_and_targets_real(name, loss, outputs, targets, expected):
    del name, expected
    with pytest.raises(TypeError, match=r"^(logits|outputs): expected a float dtype, got int32\[6"):
        loss(outputs.astype(np.int32), targets)
    if targets is not LABELS:
        with pytest.raises(TypeError, match=r"^(labels|targets): expected real numbers, got complex64\[6"):
            jax.eval_shape(loss, outputs, targets.astype(np.complex64))


@pytest.mark.parametrize(
    "loss", [losses.sigmoid_cross_entropy, losses.mean_squared_error, losses.huber], ids=["sigmoid", "squared", "huber"]
)
def test_nothing_broadcasts(loss):
    column, vector = np.zeros((6, 1), np.float32), np.zeros(6, np.float32)
    with pytest.raises(
        ValueError, match=r"^targets: expected the shape \[6, 1\] of .*, got \[6\]; drop or add the axis"
    ):
        loss(column, vector)
    with pytest.raises(
        ValueError, match=r"^targets: expected the shape \[6\] of .*, got \[6, 1\]; drop or add the axis"
    ):
        loss(vector, column)
    with pytest.raises(ValueError, match=r"^targets: expected the shape \[6\] of .*, got \[5\]$"):
        loss(vector, vector[:5])
    with pytest.raises(ValueError, match=r"^(outputs|logits): expected \[N, \.\.\.\], got a scalar"):
        loss(np.float32(1), np.float32(1))


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (LOGITS, LABELS.astype(float), TypeError, r"^labels: expected integer class labels, got float32\[6\]"),
        (LOGITS, LABELS == 0, TypeError, r"^labels: expected integer class labels, got bool\[6\]"),
        (LOGITS, np.array([0, 1, 2, 5, 0, -1]), ValueError, r"^labels\[3\]: .* label in \[0, 5\), got 5"),
        (LOGITS, np.array([0, 1, 2, 3, 0, -1]), ValueError, r"^labels\[5\]: .* label in \[0, 5\), got -1"),
        (LOGITS, jnp.array([0, 9, 2, 3, 0, 1]), ValueError, r"^labels\[1\]: .* label in \[0, 5\), got 9"),
        (LOGITS, LABELS[:5], ValueError, r"^labels: expected classes \[6\] or distributions \[6, 5\] .* got \[5\]"),
        (LOGITS, LABELS[:, None], ValueError, r"^labels: expected classes \[6\] or .* got \[6, 1\]"),
        (LOGITS, ROWS[:, :4], ValueError, r"^labels: expected classes \[6\] or .* got \[6, 4\]"),
        (LOGITS, np.ones((6, 5)), ValueError, r"^labels\[0\]: expected probabilities that sum to 1, got \[1\. 1\."),
        (LOGITS, ROWS * [[1], [1], [0], [1], [1], [1]], ValueError, r"^labels\[2\]: expected probabilities"),
        (LOGITS, np.tile([1.5, -0.5, 0, 0, 0], (6, 1)), ValueError, r"^labels\[0\]: expected probabilities"),
        (LOGITS, ROWS * np.nan, ValueError, r"^labels\[0\]: expected probabilities"),
        (LOGITS[:, 0], LABELS, ValueError, r"^logits: expected \[N, \.\.\., C\] with .*, got \[6\]; .*sigmoid"),
        (LOGITS[:, :1], LABELS * 0, ValueError, r"^logits: expected .* two classes, got \[6, 1\]; .*sigmoid"),
    ],
)
def test_wrong_classes_are_refused(logits, labels, error, message):
    with pytest.raises(error, match=message):
        losses.softmax_cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: losses.softmax_cross_entropy(LOGITS, LABELS, class_weight=[1.0, 2.0]),
            ValueError,
            r"^class_weight: expected one number a class, \[5\], got \[2\]",
        ),
        (
            lambda: losses.softmax_focal(LOGITS, LABELS, class_weight=-CLASS_WEIGHT),
            ValueError,
            r"^class_weight\[0\]: expected a finite number >= 0, got -1",
        ),
        (
            lambda: losses.sigmoid_cross_entropy(LOGITS, BITS, positive_weight=np.ones(3)),
            ValueError,
            r"^positive_weight: expected one number, or one an output, \[5\], got \[3\]",
        ),
        (lambda: losses.sigmoid_focal(LOGITS, BITS, gamma=-1), ValueError, r"^gamma: expected a finite number in \[0"),
        (lambda: losses.sigmoid_focal(LOGITS, BITS, alpha=2.0), ValueError, r"^alpha: expected a finite number in"),
        (lambda: losses.kl_divergence(LOGITS, LABELS), ValueError, r"^targets: expected the shape \[6, 5\] of logits"),
        (lambda: losses.hinge(LOGITS, 2 * BITS), ValueError, r"^targets\[.*\]: expected 1, 0 or -1, got 2"),
        (lambda: losses.ordinal(LOGITS, LABELS + 2), ValueError, r"^labels\[1\]: expected a class label in \[0, 6\)"),
        (lambda: losses.ordinal(LOGITS, BITS), ValueError, r"^logits: expected \[N, ..., C - 1\] for classes"),
        (
            lambda: losses.quantile(LOGITS, VALUES, quantile=1.0),
            ValueError,
            r"^quantile: expected a finite number in \(0, 1\), got 1",
        ),
        (
            lambda: losses.quantile(LOGITS, VALUES, quantile=(0.1, 0.9)),
            ValueError,
            r"^outputs: expected 2 quantiles of targets \[6, 5\], \[6, 5, 2\], got \[6, 5\]",
        ),
        (
            lambda: losses.gaussian_nll(LOGITS, VALUES),
            ValueError,
            r"^outputs: expected a mean and a log variance for targets \[6, 5\], \[6, 5, 2\], got \[6, 5\]",
        ),
        (lambda: losses.poisson_nll(LOGITS, -BITS), ValueError, r"^targets\[.*\]: expected a count"),
        (lambda: losses.triplet(LOGITS), ValueError, r"^outputs: expected 3 embeddings an example, \[N, 3, D\]"),
        (
            lambda: losses.contrastive(LOGITS[:, None] + np.zeros((6, 2, 5), "f"), LABELS),
            ValueError,
            r"^targets\[1\]: expected 0 or 1, got 4",
        ),
        (
            lambda: losses.ctc(np.zeros((1, 4, 3), "f"), np.array([[1, 0, 2]])),
            ValueError,
            r"^labels\[0, 2\]: expected no class behind the end of its sequence, got 2",
        ),
        (
            lambda: losses.ctc(np.zeros((1, 4, 3), "f"), np.array([[3, 0]])),
            ValueError,
            r"^labels\[0, 0\]: expected a class in \[1, 3\), or -1, got 3",
        ),
    ],
)
def test_what_a_loss_is_not_defined_for_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.slow
def test_losses_of_embeddings_are_those_of_optax():
    outputs = RNG.normal(size=(6, 3, 4)).astype("f")
    np.testing.assert_allclose(
        losses.triplet(outputs, margin=0.7),
        optax.losses.triplet_margin_loss(outputs[:, 0], outputs[:, 1], outputs[:, 2], margin=0.7),
        rtol=1e-5,
    )
    pairs, same = outputs[:, :2], np.array([1, 0, 1, 0, 0, 1])
    distance = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=-1)
    expected = np.where(same, distance**2, np.maximum(0, 3 - distance) ** 2)
    np.testing.assert_allclose(losses.contrastive(pairs, same, margin=3.0), expected, rtol=1e-5)
    equal = np.zeros((1, 3, 4), "f")
    assert jax.grad(lambda o: losses.triplet(o).sum() + losses.contrastive(o[:, :2], [0]).sum())(equal).tolist()


def test_ctc_is_the_sum_over_all_alignments():
    """Every path of a short sequence, collapsed by hand."""
    logits = RNG.normal(size=(2, 4, 3)).astype("f")
    log_p = scipy.special.log_softmax(logits.astype(float), axis=-1)

    def collapsed(path):
        kept = [b for a, b in zip((None, *path), path, strict=False) if a != b]
        return [c for c in kept if c != 0]

    for row, label in enumerate(([1, 2], [2])):
        paths = [path for path in itertools.product(range(3), repeat=4) if collapsed(path) == label]
        total = scipy.special.logsumexp([sum(log_p[row, t, c] for t, c in enumerate(path)) for path in paths])
        filled = np.array([[*label, -1, -1][:3]])
        np.testing.assert_allclose(losses.ctc(logits[row : row + 1], filled), [-total], rtol=1e-5)


def test_the_focal_loss_has_finite_slopes_at_certainty():
    sure = np.array([[100.0, 0.0], [0.0, 100.0]], "f")
    for loss, targets in ((losses.softmax_focal, [0, 0]), (losses.sigmoid_focal, [[1, 0], [1, 0]])):
        for gamma in (0.0, 0.5, 2.0):
            total = functools.partial(lambda loss, t, o, g: loss(o, t, gamma=g).sum(), loss, np.array(targets))
            slopes = jax.grad(total, (0, 1))(sure, gamma)
            assert all(np.isfinite(slope).all() for slope in slopes), (loss, gamma)


def test_wrong_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"^targets\[1\]: expected a probability in \[0, 1\], got -1"):
        losses.sigmoid_cross_entropy(np.zeros(3, np.float32), np.array([1, -1, 1]))
    with pytest.raises(ValueError, match=r"^targets\[2, 0\]: expected a probability in \[0, 1\], got 7"):
        losses.sigmoid_cross_entropy(np.zeros((3, 1), np.float32), np.array([[1], [0], [7]]))
    with pytest.raises(ValueError, match=r"^targets\[0\]: expected a probability in \[0, 1\], got nan"):
        losses.sigmoid_cross_entropy(np.zeros(1, np.float32), np.array([np.nan]))


@pytest.mark.parametrize(
    ("loss", "logits", "good", "bad"),
    [
        (losses.softmax_cross_entropy, LOGITS, LABELS, np.array([0, 4, 5, 2, -1, 3])),
        (losses.softmax_cross_entropy, LOGITS, ROWS, ROWS * [[1], [1], [0], [1], [2], [1]]),
        (
            losses.sigmoid_cross_entropy,
            LOGITS[:, 0],
            BITS[:, 0],
            np.where(np.isin(np.arange(6), [2, 4]), -1, BITS[:, 0]),
        ),
    ],
    ids=["labels", "rows", "sigmoid"],
)
def test_wrong_targets_in_a_compiled_program_are_nan_rows(loss, logits, good, bad):
    """... that a weight of 0 takes away wholly, from the mean and from the gradient."""
    np.testing.assert_array_equal(np.isnan(jax.jit(loss)(logits, bad)), [False, False, True, False, True, False])

    @jax.jit
    def mean(z, targets, weight):
        return losses.weighted_mean(loss(z, targets), weight)

    ones = np.ones(6, np.float32)
    assert np.isnan(mean(logits, bad, ones))
    keep = np.array([1, 1, 0, 1, 0, 1], np.float32)
    got, want = (jax.value_and_grad(mean)(jnp.asarray(logits), targets, keep) for targets in (bad, good))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
    assert not np.asarray(got[1])[2].any()


def test_probabilities_may_miss_by_a_rounding():
    low = jnp.asarray(ROWS, jnp.bfloat16)
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(LOGITS, low), losses.softmax_cross_entropy(LOGITS, ROWS), rtol=1e-2
    )
    assert np.isfinite(losses.sigmoid_cross_entropy(LOGITS[:, 0], np.full(6, 1.0000001))).all()


@pytest.mark.parametrize(
    "labels", [LABELS.astype(np.uint8), LABELS.astype(np.int64), np.eye(5)[LABELS], np.eye(5, dtype=bool)[LABELS]]
)
def test_every_form_of_the_same_labels_gives_the_same_loss(labels):
    np.testing.assert_array_equal(
        losses.softmax_cross_entropy(LOGITS, labels), losses.softmax_cross_entropy(LOGITS, LABELS.astype(np.int32))
    )


def test_more_classes_than_the_label_dtype_can_count():
    logits = np.zeros((2, 300), np.float32)
    logits[:, 0] = 5
    labels = np.array([0, 255], np.uint8)
    for loss in (losses.softmax_cross_entropy, jax.jit(losses.softmax_cross_entropy)):
        np.testing.assert_allclose(
            loss(logits, labels), optax.softmax_cross_entropy_with_integer_labels(logits, labels), rtol=1e-6
        )


def test_an_excluded_class_adds_nothing():
    logits = np.where(np.arange(5) == 4, -np.inf, LOGITS).astype(np.float32)
    labels = LABELS % 4
    rest = losses.softmax_cross_entropy(LOGITS[:, :4], labels)
    for targets in (labels, np.eye(5)[labels]):
        value, gradient = jax.value_and_grad(lambda z, t=targets: losses.softmax_cross_entropy(z, t).sum())(logits)
        np.testing.assert_allclose(value, rest.sum(), rtol=1e-6)
        assert np.isfinite(gradient).all() and not np.asarray(gradient)[:, 4].any()
    assert np.isposinf(losses.softmax_cross_entropy(logits, np.full(6, 4))).all()
    infinite = np.array([np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(losses.sigmoid_cross_entropy(infinite, np.array([1, 0])), [0, 0])
    np.testing.assert_array_equal(losses.sigmoid_cross_entropy(infinite, np.array([0, 1])), [np.inf, np.inf])


def test_small_losses_keep_their_digits():
    """At confident, right outputs: ℓ = e^-z, which the form max(z, 0) - z·t + log(1 + e^-|z|) would round to 0."""
    np.testing.assert_allclose(
        losses.sigmoid_cross_entropy(np.array([20.0], np.float32), np.array([1])), np.exp(-20), rtol=1e-5
    )
    np.testing.assert_allclose(
        losses.sigmoid_cross_entropy(np.array([-20.0], np.float32), np.array([0])), np.exp(-20), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "loss", "targets", "values"),
    [
        ("label_smoothing", losses.softmax_cross_entropy, LABELS, [0.0, 0.1, 1.0]),
        ("delta", losses.huber, VALUES, [0.5, 1.0, 3.0]),
    ],
)
def test_numbers_may_be_traced_and_swept(name, loss, targets, values):
    def total(value):
        return loss(LOGITS, targets, **{name: value}).sum()

    swept = jax.jit(jax.vmap(total))(jnp.array(values))
    np.testing.assert_allclose(swept, [total(value) for value in values], rtol=1e-6)
    assert len(np.unique(swept)) == 3


def test_slope_in_the_smoothing_is_right_at_zero_also():
    """It is the difference of two cross-entropies: with uniform rows, and with the labels."""
    slope = jax.grad(lambda a: losses.softmax_cross_entropy(LOGITS, LABELS, label_smoothing=a).sum())
    uniform = losses.softmax_cross_entropy(LOGITS, np.full((6, 5), 0.2))
    expected = (uniform - losses.softmax_cross_entropy(LOGITS, LABELS)).sum()
    np.testing.assert_allclose([slope(0.0), slope(0.3)], [expected, expected], rtol=1e-5)


def test_slope_in_delta_is_the_excess_error():
    """dℓ/dδ = abs(e) - δ where the loss is linear, else 0."""
    slope = jax.grad(lambda d: losses.huber(LOGITS[:, 0], VALUES[:, 0], delta=d).sum())(1.5)
    np.testing.assert_allclose(slope, np.maximum(np.abs(LOGITS - VALUES)[:, 0] - 1.5, 0).sum(), rtol=1e-5)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_label_smoothing_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"^label_smoothing: expected a finite number in \[0, 1\]"):
        losses.softmax_cross_entropy(LOGITS, LABELS, label_smoothing=value)


@pytest.mark.parametrize("value", [-1.0, 0.0, float("inf")])
def test_delta_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"^delta: expected a finite number in \(0, inf\)"):
        losses.huber(LOGITS, VALUES, delta=value)


def test_huber_has_its_curvature_at_zero_error():
    def loss(e):
        return losses.huber(e[None], jnp.zeros(1), delta=0.5)[0]

    for error, curvature in ((0.0, 1.0), (0.2, 1.0), (-0.2, 1.0), (0.8, 0.0)):
        assert jax.grad(jax.grad(loss))(error) == curvature
        np.testing.assert_allclose(jax.grad(loss)(error), np.clip(error, -0.5, 0.5))


def test_weighted_mean_is_the_average_of_numpy():
    values, weight = RNG.normal(size=50).astype(np.float32), RNG.random(50).astype(np.float32)
    np.testing.assert_allclose(losses.weighted_mean(values, weight), np.average(values, weights=weight), rtol=1e-5)
    np.testing.assert_allclose(losses.weighted_mean(values), values.mean(), rtol=1e-5)
    np.testing.assert_array_equal(losses.weighted_mean(values, np.ones(50)), losses.weighted_mean(values))
    np.testing.assert_array_equal(
        losses.weighted_mean(values, values > 0), losses.weighted_mean(values, 1.0 * (values > 0))
    )
    half = losses.weighted_mean(jnp.full(4096, 1.001, jnp.bfloat16), jnp.ones(4096, jnp.bfloat16))
    assert half.dtype == jnp.float32 and half == 1  # 1.001 is 1 in bfloat16; 4096 ones added up in it would be 256
    with jax.enable_x64(True):
        assert losses.weighted_mean(values.astype(np.float64), weight).dtype == jnp.float64
        assert losses.weighted_mean(values, weight.astype(np.float64)).dtype == jnp.float32


def test_weighted_mean_of_no_weight_is_zero_with_zero_gradient():
    value, gradient = jax.value_and_grad(losses.weighted_mean)(jnp.array([1.0, jnp.inf, jnp.nan]), jnp.zeros(3))
    assert value == 0 and not np.asarray(gradient).any()
    assert losses.weighted_mean(jnp.zeros(0)) == 0 and losses.weighted_mean(jnp.zeros(0), jnp.zeros(0)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_of_weight_zero_count_nowhere(bad):
    value, gradient = jax.jit(jax.value_and_grad(losses.weighted_mean))(
        jnp.array([2.0, bad, 6.0]), jnp.array([1.0, 0.0, 3.0])
    )
    assert value == 5 and gradient.tolist() == [0.25, 0.0, 0.75]
    assert not np.isfinite(losses.weighted_mean(jnp.array([2.0, bad, 6.0]), jnp.array([1.0, 1e-9, 3.0])))


def test_weighted_mean_is_differentiable_in_the_weights_also_at_zero():
    values, weight = jnp.array([2.0, 3.0, 6.0]), jnp.array([1.0, 0.0, 3.0])
    slope = jax.grad(losses.weighted_mean, argnums=1)(values, weight)
    np.testing.assert_allclose(slope, (values - 5) / 4)  # d/dw_i Σwℓ/Σw = (ℓ_i - mean)/Σw
    assert np.isnan(jax.jit(losses.weighted_mean)(values, jnp.array([1.0, jnp.nan, 1.0])))


@pytest.mark.parametrize(
    ("values", "weight", "message"),
    [
        (np.ones((3, 1)), None, r"^per_example: expected one number an example, \[N\], got \[3, 1\]"),
        (np.ones(()), None, r"^per_example: .* got \[\]"),
        (np.ones(3), np.ones(2), r"^weight: expected one weight an example, \[3\], got \[2\]"),
        (np.ones(3), np.ones((3, 1)), r"^weight: .* got \[3, 1\]"),
        (np.ones(3), np.array([1, -2, 1]), r"^weight\[1\]: expected a finite number >= 0, got -2"),
        (np.ones(3), np.array([1, 1, np.nan]), r"^weight\[2\]: expected a finite number >= 0, got nan"),
    ],
)
def test_weighted_mean_refuses(values, weight, message):
    with pytest.raises(ValueError, match=message):
        losses.weighted_mean(values, weight)


def test_weighted_mean_has_the_scale_of_the_values_whatever_the_weights():
    values, weight = RNG.normal(size=50).astype(np.float32), RNG.uniform(0.1, 1, 50).astype(np.float32)
    compiled = jax.jit(losses.weighted_mean)
    for size in (1e-30, 1e-10, 1.0, 1e20, 1e36):
        for scale in (1e-35, 1e-20, 1.0, 1e20, 3e38):
            ours = compiled(values * np.float32(size), weight * np.float32(scale))
            np.testing.assert_allclose(
                ours / np.float32(size), np.average(values, weights=weight), rtol=1e-5, atol=1e-7
            )
    powers = weight * np.float32(2.0**-70)
    np.testing.assert_array_equal(compiled(values, powers), compiled(values, weight))  # not a bit is lost
    slope = jax.grad(losses.weighted_mean, argnums=1)(jnp.array([2.0, 3.0, 6.0]), jnp.array([1e-30, 0, 3e-30]))
    np.testing.assert_allclose(slope, (np.array([2, 3, 6]) - 5) / 4e-30, rtol=1e-6)


ONE_ROW = jax.ShapeDtypeStruct((1, 3), jnp.float32)
ONE_OUTPUT = jax.ShapeDtypeStruct((1, 1), jnp.float32)
MANY = np.arange(1000) % 3


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "message"),
    [
        (losses.softmax_cross_entropy, ONE_ROW, MANY + 1, r"labels\[2\]: .* got 3; classes count from 0"),
        (
            functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1),
            ONE_ROW,
            jnp.where(jnp.arange(1000) < 999, MANY, 7),
            r"labels\[999\]: expected a class label in \[0, 3\), got 7",
        ),
        (
            lambda o, t: losses.softmax_cross_entropy(o["a"], t["a"]),
            {"a": ONE_ROW},
            {"a": MANY - 1},
            r"labels\[0\]: .* -1",
        ),
        (
            lambda o, t: 2 * losses.softmax_cross_entropy(o, t[:, 0]),
            ONE_ROW,
            MANY[:, None] * 2,
            r"labels\[2\]: .* got 4",
        ),
        (
            losses.softmax_cross_entropy,
            ONE_ROW,
            np.eye(3)[MANY] * 2,
            r"labels\[0\]: expected probabilities that sum to 1",
        ),
        (losses.sigmoid_cross_entropy, ONE_OUTPUT, (MANY > 0)[:, None] * 2 - 1, r"targets\[0, 0\]: .*\[0, 1\], got -1"),
        (lambda o, t: losses.sigmoid_cross_entropy(o, t[:, None]), ONE_OUTPUT, MANY - 1, r"targets\[0, 0\]: .* got -1"),
        (
            losses.mean_squared_error,
            ONE_OUTPUT,
            np.full((9, 1), 1e300),
            r"targets\[0, 0\]: .* fit float32, got 1e\+300",
        ),
    ],
)
def test_targets_are_checked_by_what_the_loss_says(loss, outputs, targets, message):
    with pytest.raises(ValueError, match=rf"^train\.y, as the loss takes it: {message}"):
        check_targets("train.y", loss, outputs, targets)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: jnp.exp(o[:, 0]) - t * o[:, 0],  # a likelihood of counts
        lambda o, t: losses.huber(o[:, 0], t),
        lambda o, t: jnp.zeros_like(o[:, 0]).at[t].add(1.0),
        lambda o, t: t.at[0].set(1) * o[:, 0],  # which a NumPy array has not
        lambda o, t: o.no_such_attribute,  # the run's own trace will say so
    ],
)
def test_a_loss_of_ones_own_may_take_any_integers(loss):
    check_targets("train.y", loss, ONE_ROW, np.array([-5, 0, 70_000]))
    check_targets("train.y", losses.softmax_cross_entropy, ONE_ROW, MANY)
    check_targets("train.y", losses.softmax_cross_entropy, ONE_ROW, None)
    jax.jit(lambda t: check_targets("train.y", losses.softmax_cross_entropy, ONE_ROW, t))(MANY + 1)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (jax.nn.softmax, "softmax"),
        (jax.jit(lambda z: jax.nn.softmax(z.astype(jnp.bfloat16)).astype(jnp.float32)), "softmax"),
        (lambda z: jnp.exp(z) / jnp.exp(z).sum(-1, keepdims=True), "softmax"),
        (jax.checkpoint(lambda z: jax.nn.sigmoid(z).reshape(z.shape)), "sigmoid"),
        (lambda z: z, None),
        (jnp.tanh, None),
        (jax.nn.log_softmax, None),
        (jax.nn.silu, None),
        (lambda z: 3 * jax.nn.softmax(z), None),
        (lambda z: z / 2, None),
    ],
)
def test_an_activation_before_a_loss_that_has_one_is_seen(activation, expected):
    def outputs(w, x):
        return activation(x @ w)

    shapes = jax.ShapeDtypeStruct((3, 2), jnp.float32), jax.ShapeDtypeStruct((5, 3), jnp.float32)
    for loss in (
        losses.softmax_cross_entropy,
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1),
        losses.sigmoid_cross_entropy,
    ):
        assert activation_before(loss, outputs, *shapes) == expected
    assert activation_before(losses.mean_squared_error, outputs, *shapes) is None
    assert activation_before(lambda p, t: -jnp.log(p[:, 0]), outputs, *shapes) is None


def test_lists_and_other_byte_orders_are_taken_and_hidden_values_are_not():
    expected = losses.softmax_cross_entropy(LOGITS, LABELS)
    for logits, labels in ((LOGITS.astype(">f4"), LABELS.astype(">i2")), (LOGITS.tolist(), LABELS.tolist())):
        np.testing.assert_allclose(losses.softmax_cross_entropy(logits, labels), expected, rtol=1e-6)
    with pytest.raises(TypeError, match=r"^labels: .* got a masked array"):
        losses.softmax_cross_entropy(LOGITS, np.ma.array(LABELS, mask=LABELS > 2))
    with pytest.raises(TypeError, match=r"^weight: .* got a masked array"):
        losses.weighted_mean(VALUES[:, 0], np.ma.array(np.ones(6), mask=LABELS > 2))
