import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from jaxopt_nn import losses, metrics

RNG = np.random.default_rng(11)
N, C = 40, 6
OUTPUTS = RNG.normal(size=(N, C)).astype(np.float32)
LABELS = RNG.integers(0, C, N)
BITS = RNG.integers(0, 2, (N, C))
VALUES = (OUTPUTS + RNG.normal(size=(N, C))).astype(np.float32)
WEIGHT = RNG.integers(0, 3, N).astype(np.float32)
PREDICTIONS = OUTPUTS.argmax(-1)

# name, metric, outputs, targets, scikit-learn's value over the set with sample weights
METRICS = [
    (
        "accuracy",
        metrics.accuracy,
        OUTPUTS,
        LABELS,
        lambda w: sklearn.metrics.accuracy_score(LABELS, PREDICTIONS, sample_weight=w),
    ),
    (
        "accuracy_one_hot",
        metrics.accuracy,
        OUTPUTS,
        np.eye(C)[LABELS],
        lambda w: sklearn.metrics.accuracy_score(LABELS, PREDICTIONS, sample_weight=w),
    ),
    *(
        (
            f"top_{k}",
            functools.partial(metrics.top_k_accuracy, k=k),
            OUTPUTS,
            LABELS,
            lambda w, k=k: sklearn.metrics.top_k_accuracy_score(LABELS, OUTPUTS, k=k, sample_weight=w),
        )
        for k in (1, 3, 5)
    ),
    (
        "binary",
        metrics.binary_accuracy,
        OUTPUTS[:, 0],
        BITS[:, 0],
        lambda w: sklearn.metrics.accuracy_score(BITS[:, 0], OUTPUTS[:, 0] > 0, sample_weight=w),
    ),
    (
        "multi_label",
        functools.partial(metrics.binary_accuracy, threshold=0.5),
        OUTPUTS,
        BITS.astype(bool),
        lambda w: (
            1
            - sum(sklearn.metrics.zero_one_loss(BITS[:, c], OUTPUTS[:, c] > 0.5, sample_weight=w) for c in range(C)) / C
        ),
    ),
    (
        "absolute",
        metrics.absolute_error,
        OUTPUTS,
        VALUES,
        lambda w: sklearn.metrics.mean_absolute_error(VALUES, OUTPUTS, sample_weight=w),
    ),
    (
        "squared",
        metrics.squared_error,
        OUTPUTS,
        VALUES,
        lambda w: sklearn.metrics.mean_squared_error(VALUES, OUTPUTS, sample_weight=w),
    ),
    (
        "percentage",
        metrics.absolute_percentage_error,
        OUTPUTS,
        VALUES,
        lambda w: sklearn.metrics.mean_absolute_percentage_error(VALUES, OUTPUTS, sample_weight=w),
    ),
]
TABLE = pytest.mark.parametrize(
    ("name", "metric", "outputs", "targets", "expected"), METRICS, ids=[r[0] for r in METRICS]
)


@TABLE
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_the_weighted_mean_is_that_of_scikit_learn(name, metric, outputs, targets, expected, weight):
    del name
    got = metric(outputs, targets)
    assert got.shape == (N,) and got.dtype == jnp.float32
    np.testing.assert_allclose(losses.weighted_mean(got, weight), expected(weight), rtol=1e-6)


@TABLE
def test_compiled_and_swept_equal_eager(name, metric, outputs, targets, expected):
    del name, expected
    np.testing.assert_allclose(jax.jit(metric)(outputs, targets), metric(outputs, targets), rtol=1e-6)
    lanes = jax.vmap(metric, in_axes=(0, None))(jnp.stack([-outputs, outputs]), targets)
    np.testing.assert_allclose(lanes[1], metric(outputs, targets), rtol=1e-6)


@TABLE
def test_axes_behind_the_first_are_averaged(name, metric, outputs, targets, expected):
    del name, expected
    got = metric(outputs.reshape(N // 4, 4, *outputs.shape[1:]), targets.reshape(N // 4, 4, *targets.shape[1:]))
    np.testing.assert_allclose(got, metric(outputs, targets).reshape(-1, 4).mean(1), rtol=1e-6)


@TABLE
def test_low_precision_outputs(name, metric, outputs, targets, expected):
    del name, expected
    low = jnp.asarray(outputs, jnp.bfloat16)
    got = metric(low, targets)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, metric(low.astype(jnp.float32), targets))


@TABLE
def test_nan_is_never_right(name, metric, outputs, targets, expected):
    del expected
    outputs = outputs.copy()
    outputs[3] = np.nan  # a whole row,
    outputs.reshape(N, -1)[5, -1] = np.nan  # and one output of a row
    got = np.asarray(metric(outputs, targets))
    if name in {"absolute", "squared", "percentage"}:
        assert np.isnan(got[[3, 5]]).all() and np.isfinite(np.delete(got, [3, 5])).all()
    elif name == "multi_label":
        assert got[3] == 0 and got[5] <= (C - 1) / C
    else:
        assert got[3] == 0 and got[5] == 0


@pytest.mark.parametrize("label", range(C))
def test_a_row_of_nan_is_wrong_for_every_class(label):
    rows = np.full((1, C), np.nan, np.float32)
    assert metrics.accuracy(rows, np.array([label])) == 0
    assert metrics.top_k_accuracy(rows, np.array([label]), k=C) == 0
    assert metrics.binary_accuracy(rows[:, 0], np.array([label % 2])) == 0
    assert metrics.accuracy(-np.arange(C, dtype=np.float32)[None], rows) == 0  # argmax of a row of NaN is 0
    assert metrics.binary_accuracy(OUTPUTS[:1], rows) == 0


def test_of_equal_outputs_the_first_is_the_largest():
    rows = np.array(
        [[1, 3, 3, 0], [2, 2, 2, 2], [np.inf, np.inf, 0, 0], [-np.inf, -np.inf, -np.inf, -np.inf]], np.float32
    )
    first = rows.argmax(-1)
    for label in range(4):
        np.testing.assert_array_equal(metrics.accuracy(rows, np.full(4, label)), first == label)
    assert metrics.accuracy(rows[:1], np.array([[0.0, 0.5, 0.5, 0.0]])) == 1


def test_a_logit_on_the_threshold_is_a_no():
    assert metrics.binary_accuracy(np.zeros(2, np.float32), np.array([0, 1])).tolist() == [1, 0]
    swept = jax.vmap(lambda t: metrics.binary_accuracy(np.array([0.3], np.float32), np.array([1]), threshold=t))
    assert swept(jnp.array([0.2, 0.4])).tolist() == [[1], [0]]


def test_classes_out_of_range():
    with pytest.raises(ValueError, match=rf"^labels\[1\]: expected a class label in \[0, {C}\), got {C}"):
        metrics.accuracy(OUTPUTS[:2], np.array([0, C]))
    for wrong in (np.array([-1, C]), np.array([-C, 2 * C])):  # nor does the last class or a clipped index pass for them
        for metric in (metrics.accuracy, functools.partial(metrics.top_k_accuracy, k=C)):
            assert jax.jit(metric)(OUTPUTS[:2], wrong).tolist() == [0, 0]
        for labels, predictions in ((wrong, LABELS[:2]), (LABELS[:2], wrong)):
            assert jax.jit(metrics.confusion_matrix, static_argnums=2)(labels, predictions, C).sum() == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: metrics.accuracy(OUTPUTS, LABELS * 1.0),
            TypeError,
            r"^labels: expected integer class labels, got float32",
        ),
        (
            lambda: metrics.accuracy(OUTPUTS[:, 0], LABELS),
            ValueError,
            r"^outputs: expected \[N, \.\.\., C\] with at least two classes, got \[40\]; .*use binary_accuracy",
        ),
        (
            lambda: metrics.accuracy(OUTPUTS, LABELS[:, None]),
            ValueError,
            r"^labels: expected classes \[40\] or rows \[40, 6\]",
        ),
        (
            lambda: metrics.accuracy(OUTPUTS, VALUES),  # what a regression has
            ValueError,
            r"^labels\[0\]: expected probabilities that sum to 1, got \[",
        ),
        (
            lambda: metrics.top_k_accuracy(OUTPUTS, np.ones((N, C), int)),  # several labels an example
            ValueError,
            r"^labels\[0\]: expected probabilities that sum to 1, got \[1 1",
        ),
        (
            lambda: metrics.binary_accuracy(OUTPUTS[:, 0], 2 * BITS[:, 0] - 1),
            ValueError,
            r"^targets\[\d+\]: expected a probability in \[0, 1\], got -1",
        ),
        (
            lambda: metrics.squared_error(OUTPUTS, np.ma.array(VALUES, mask=VALUES > 0)),
            TypeError,
            r"^targets: .* got a masked array",
        ),
        (
            lambda: metrics.absolute_error(OUTPUTS, VALUES.astype(float) * 1e300),
            ValueError,
            r"^targets\[0, 0\]: expected numbers that fit float32, got ",
        ),
        (lambda: metrics.top_k_accuracy(OUTPUTS, LABELS, k=7), ValueError, r"^k: expected an int in \[1, 6\], got 7"),
        (lambda: metrics.top_k_accuracy(OUTPUTS, LABELS, k=0), ValueError, r"^k: expected an int in \[1, 6\], got 0"),
        (
            lambda: metrics.binary_accuracy(OUTPUTS[:, :1], BITS[:, 0]),
            ValueError,
            r"^targets: expected the shape \[40, 1\]",
        ),
        (
            lambda: metrics.absolute_error(OUTPUTS[:, 0], VALUES[:, :1]),
            ValueError,
            r"^targets: expected the shape \[40\]",
        ),
        (lambda: metrics.squared_error(OUTPUTS, VALUES[:, 0]), ValueError, r"^targets: expected the shape \[40, 6\]"),
        (lambda: metrics.squared_error(1.0, 1.0), ValueError, r"^outputs: expected \[N, \.\.\.\], got a scalar"),
        (
            lambda: metrics.binary_accuracy(OUTPUTS, BITS, threshold=np.nan),
            ValueError,
            r"^threshold: expected a finite",
        ),
        (
            lambda: metrics.confusion_matrix(LABELS, OUTPUTS, C),
            TypeError,
            r"^predictions: expected integer class labels",
        ),
        (
            lambda: metrics.confusion_matrix(LABELS, LABELS[:3], C),
            ValueError,
            r"^predictions: expected the shape \[40\]",
        ),
        (lambda: metrics.confusion_matrix(BITS, BITS, C), ValueError, r"^labels: expected \[N\], got \[40, 6\]"),
        (
            lambda: metrics.confusion_matrix(LABELS, LABELS + C, C),
            ValueError,
            r"^predictions\[0\]: expected a class label",
        ),
        (lambda: metrics.confusion_matrix(LABELS, LABELS, 0), ValueError, r"^num_classes: expected an int"),
        (lambda: metrics.confusion_matrix(LABELS, LABELS, C, WEIGHT - 1), ValueError, r"^weight\[\d+\]: .* got -1"),
        (
            lambda: metrics.precision_recall_f1(OUTPUTS),
            ValueError,
            r"^confusion: expected a square matrix .* got \[40, 6\]",
        ),
        (lambda: metrics.r2_score(VALUES, OUTPUTS[:, 0]), ValueError, r"^targets: expected the shape \[40\]"),
        (lambda: metrics.r2_score(VALUES[:0], OUTPUTS[:0]), ValueError, r"^outputs: expected at least one example"),
        (
            lambda: metrics.r2_score(VALUES, OUTPUTS, WEIGHT[:3]),
            ValueError,
            r"^weight: expected one weight an example, \[40\]",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("weight", [None, WEIGHT, WEIGHT.astype(bool)], ids=["counts", "weighted", "chosen"])
def test_confusion_matrix_and_scores_are_those_of_scikit_learn(weight):
    got = metrics.confusion_matrix(LABELS, PREDICTIONS, C, weight)
    assert got.dtype == (jnp.int32 if weight is None else jnp.float32)
    np.testing.assert_allclose(got, sklearn.metrics.confusion_matrix(LABELS, PREDICTIONS, sample_weight=weight))
    scores = metrics.precision_recall_f1(got)
    expected = sklearn.metrics.precision_recall_fscore_support(LABELS, PREDICTIONS, sample_weight=weight)
    for ours, theirs in zip(scores, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    compiled = jax.jit(metrics.confusion_matrix, static_argnums=2)(LABELS, PREDICTIONS, C, weight)
    np.testing.assert_array_equal(compiled, got)


def test_scores_of_classes_that_do_not_occur_are_zero():
    labels, predictions = np.array([0, 0, 1]), np.array([0, 1, 1])
    got = metrics.precision_recall_f1(metrics.confusion_matrix(labels, predictions, 4))
    expected = sklearn.metrics.precision_recall_fscore_support(labels, predictions, labels=range(4), zero_division=0)
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert got.support.tolist() == [2, 1, 0, 0]


def test_more_classes_than_the_label_dtype_can_count():
    classes = np.array([0, 255, 7], np.uint8)
    confusion = metrics.confusion_matrix(classes, classes, 300)
    assert np.diag(confusion)[classes].tolist() == [1, 1, 1] and confusion.sum() == 3
    outputs = np.zeros((3, 300), np.float32)
    outputs[:, 256] = 1  # 256 is 0 in uint8
    assert metrics.accuracy(outputs, classes).tolist() == [0, 0, 0]


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_r2_is_that_of_scikit_learn(weight, shift):
    targets, outputs = VALUES + np.float32(shift), OUTPUTS + np.float32(shift)
    for t, o in ((targets, outputs), (targets[:, 0], outputs[:, 0])):
        expected = sklearn.metrics.r2_score(t.astype(float), o.astype(float), sample_weight=weight)
        np.testing.assert_allclose(metrics.r2_score(t, o, weight), expected, rtol=1e-5)
        np.testing.assert_allclose(jax.jit(metrics.r2_score)(t, o, weight), expected, rtol=1e-5)


def test_r2_of_constant_targets_is_that_of_scikit_learn():
    constant = np.full(10, 0.1, np.float32)
    off = constant + np.float32(1e-3)
    assert metrics.r2_score(constant, constant) == sklearn.metrics.r2_score(constant, constant) == 1
    assert metrics.r2_score(constant, off) == sklearn.metrics.r2_score(np.full(8, 0.5), np.full(8, 0.501)) == 0
    both = metrics.r2_score(np.stack([constant, VALUES[:10, 0]], 1), np.stack([off, VALUES[:10, 0]], 1))
    assert both == 0.5
    first_apart, weight = np.where(np.arange(10) == 0, np.nan, constant), np.arange(10) % 4  # the first of weight 0
    assert metrics.r2_score(first_apart, off, weight) == 0


def test_r2_and_rows_that_do_not_count():
    weight = WEIGHT.copy()
    weight[0] = 0
    targets, outputs = VALUES.copy(), OUTPUTS.copy()
    targets[0], outputs[0] = np.nan, np.inf
    np.testing.assert_array_equal(metrics.r2_score(targets, outputs, weight), metrics.r2_score(VALUES, OUTPUTS, weight))
    assert np.isnan(metrics.r2_score(targets, outputs))
    assert np.isnan(metrics.r2_score(np.zeros(3, np.float32), np.array([np.nan, 0, 0], np.float32)))
    assert np.isnan(metrics.r2_score(VALUES, OUTPUTS, np.zeros(N)))


def test_one_output_has_no_largest():
    """Whatever it says it is the largest: its accuracy was 1 for any labels."""
    logits = np.array([2, -1, 0.5, -3, 1, -0.5, 0.1, -2, 4, 1], np.float32)[:, None]
    bits = np.array([1, 0, 1, 0, 0, 0, 1, 1, 1, 0])[:, None]
    for metric in (metrics.accuracy, functools.partial(metrics.top_k_accuracy, k=1)):
        for labels in (bits, bits[:, 0], 1 - bits, bits * 3.7):
            with pytest.raises(
                ValueError, match=r"at least two classes, got \[10, 1\]; .*binary_accuracy, with threshold"
            ):
                jax.eval_shape(metric, logits, labels)
    right = sklearn.metrics.accuracy_score(bits, logits > 0)
    assert right == 0.7
    np.testing.assert_allclose(metrics.binary_accuracy(logits, bits).mean(), right)
    probabilities = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(metrics.binary_accuracy(probabilities, bits, threshold=0.5).mean(), right)
    np.testing.assert_allclose(metrics.binary_accuracy(logits, 1 - bits).mean(), 1 - right)


def test_targets_of_a_regression_are_never_right_in_a_compiled_program():
    assert not np.any(jax.jit(metrics.accuracy)(OUTPUTS, OUTPUTS))
    assert not np.any(jax.jit(metrics.binary_accuracy)(OUTPUTS[:, 0], np.full(N, 3.7)))


def test_weights_are_added_up_beyond_the_integers_of_float32():
    weight = np.ones(2**17 + 2**12, np.float32)
    weight[: 2**12] = 2**12  # 2^24, to which float32 adds no 1
    zeros, total = np.zeros(len(weight), int), 2**24 + 2**17
    assert metrics.confusion_matrix(zeros, zeros, 2, weight).tolist() == [[total, 0], [0, 0]]
    compiled = jax.jit(metrics.confusion_matrix, static_argnums=2)
    assert compiled(zeros, zeros, 2, weight).tolist() == [[total, 0], [0, 0]]


def test_scores_of_counts_that_cannot_be_doubled():
    for counts in (np.array([[200, 50], [100, 150]], np.uint8), np.array([[1_500_000_000, 500_000_000], [1, 1]])):
        labels, predictions, weight = [0, 0, 1, 1], [0, 1, 0, 1], counts.ravel().astype(float)
        expected = sklearn.metrics.precision_recall_fscore_support(labels, predictions, sample_weight=weight)
        for ours, theirs in zip(metrics.precision_recall_f1(counts), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-35, 1e-21, 1.0, 1e20, 1e37])
def test_r2_at_every_scale_of_values_and_weights(scale):
    score, rng = jax.jit(metrics.r2_score), np.random.default_rng(0)
    targets = (rng.normal(size=(30, 2)) * scale).astype(np.float32)
    for error in (1e-35, 1e-21, 1e-3, 1.0, 1e20, 1e37):
        outputs = (targets + rng.normal(size=(30, 2)) * error).astype(np.float32)
        for size in (1e-35, 1e-30, 1.0, 1e37):
            weight = rng.uniform(0.1, 1, 30).astype(np.float32)
            expected = sklearn.metrics.r2_score(targets.astype(float), outputs.astype(float), sample_weight=weight)
            got = score(targets, outputs, weight * np.float32(size))
            with np.errstate(over="ignore"):
                np.testing.assert_allclose(got, np.float32(expected), rtol=1e-5, atol=1e-6)


TIED = np.round(OUTPUTS[:, 0], 0)
CHANCES = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(1, keepdims=True)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("scores", [OUTPUTS[:, 0], TIED], ids=["distinct", "tied"])
def test_areas_under_curves_are_those_of_scikit_learn(scores, weight):
    labels = BITS[:, 0]
    expected = sklearn.metrics.roc_auc_score(labels, scores, sample_weight=weight)
    np.testing.assert_allclose(metrics.roc_auc(labels, scores, weight), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(metrics.roc_auc)(labels.astype(bool), scores, weight), expected, rtol=1e-6)
    expected = sklearn.metrics.average_precision_score(labels, scores, sample_weight=weight)
    np.testing.assert_allclose(metrics.average_precision(labels, scores, weight), expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
def test_scores_of_probabilities_and_of_confusion_are_those_of_scikit_learn(weight):
    expected = sklearn.metrics.log_loss(LABELS, CHANCES, sample_weight=weight, labels=range(C))
    np.testing.assert_allclose(metrics.log_loss(LABELS, CHANCES, weight), expected, rtol=1e-5)
    two = CHANCES[:, 0].astype("f")
    expected = sklearn.metrics.log_loss(BITS[:, 0], two, sample_weight=weight)
    np.testing.assert_allclose(metrics.log_loss(BITS[:, 0], two, weight), expected, rtol=1e-5)
    predicted = OUTPUTS.argmax(1)
    predicted[::2] = LABELS[::2]
    confusion = metrics.confusion_matrix(LABELS, predicted, C, weight)
    expected = sklearn.metrics.matthews_corrcoef(LABELS, predicted, sample_weight=weight)
    np.testing.assert_allclose(metrics.matthews_correlation(confusion), expected, rtol=1e-5)
    for beta in (0.5, 2.0):
        expected = sklearn.metrics.fbeta_score(
            LABELS, predicted, beta=beta, average=None, sample_weight=weight, labels=range(C), zero_division=0
        )
        np.testing.assert_allclose(metrics.f_beta(confusion, beta), expected, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_random_data_with_ties_zeros_and_weights_have_the_values_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    outputs = rng.integers(0, 4, (N, C)).astype(np.float32)
    labels, values = rng.integers(0, C, N), rng.integers(-2, 3, N).astype(np.float32)
    weight = rng.integers(0, 3, N) * rng.uniform(0.1, 1, N).astype(np.float32)
    predicted, chances = outputs.argmax(1), (outputs + 1e-9) / (outputs + 1e-9).sum(1, keepdims=True)
    bits, scores = labels % 2, outputs[:, 0]
    score = sklearn.metrics
    mean = lambda each: losses.weighted_mean(each, weight)  # noqa: E731
    confusion = metrics.confusion_matrix(labels, predicted, C, weight)
    pairs = {
        "accuracy": (
            mean(metrics.accuracy(outputs, labels)),
            score.accuracy_score(labels, predicted, sample_weight=weight),
        ),
        **{
            f"top_{k}": (
                mean(metrics.top_k_accuracy(outputs, labels, k=k)),
                score.top_k_accuracy_score(labels, outputs, k=k, labels=range(C), sample_weight=weight),
            )
            for k in (1, 2, 4)
        },
        "percentage": (
            mean(metrics.absolute_percentage_error(scores, values)),
            score.mean_absolute_percentage_error(values, scores, sample_weight=weight),
        ),
        "r2": (metrics.r2_score(values, scores, weight), score.r2_score(values, scores, sample_weight=weight)),
        "auc": (metrics.roc_auc(bits, scores, weight), score.roc_auc_score(bits, scores, sample_weight=weight)),
        "precision": (
            metrics.average_precision(bits, scores, weight),
            score.average_precision_score(bits, scores, sample_weight=weight),
        ),
        "log_loss": (
            metrics.log_loss(labels, chances, weight),
            score.log_loss(labels, chances, sample_weight=weight, labels=range(C)),
        ),
        "matthews": (
            metrics.matthews_correlation(confusion),
            score.matthews_corrcoef(labels, predicted, sample_weight=weight),
        ),
        "f_2": (
            metrics.f_beta(confusion, 2.0),
            score.fbeta_score(
                labels, predicted, beta=2, average=None, sample_weight=weight, labels=range(C), zero_division=0
            ),
        ),
        "report": (
            metrics.precision_recall_f1(confusion),
            score.precision_recall_fscore_support(
                labels, predicted, sample_weight=weight, labels=range(C), zero_division=0
            ),
        ),
    }
    for name, (got, expected) in pairs.items():
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6, err_msg=name)


def test_the_report_is_that_of_scikit_learn_to_the_letter():
    predicted = np.where(np.arange(N) % 3 == 0, LABELS, 2)
    for names in (None, ["a", "b", "c", "d", "e", "a name that is longer than others"]):
        ours = metrics.classification_report(metrics.confusion_matrix(LABELS, predicted, C), names, digits=3)
        expected = sklearn.metrics.classification_report(
            LABELS, predicted, labels=None if names is None else range(C), target_names=names, digits=3, zero_division=0
        )
        assert ours == expected
    with pytest.raises(ValueError, match=r"^names: expected one a class, 6, got 2"):
        metrics.classification_report(np.eye(6), ["a", "b"])


def test_calibration_is_the_gap_between_confidence_and_accuracy_bin_by_bin():
    confidence, right = CHANCES.max(1), CHANCES.argmax(1) == LABELS
    bins = np.ceil(confidence * 10)
    gaps = [abs((WEIGHT * (right - confidence))[bins == b].sum()) for b in range(1, 11)]
    got = metrics.calibration_error(LABELS, CHANCES, WEIGHT, bins=10)
    np.testing.assert_allclose(got, sum(gaps) / WEIGHT.sum(), rtol=1e-5)
    sure = np.eye(C, dtype="f")[LABELS]
    assert metrics.calibration_error(LABELS, sure) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.roc_auc(LABELS, OUTPUTS[:, 0]), ValueError, r"^labels\[.*\]: expected 0 or 1, got"),
        (lambda: metrics.roc_auc(BITS, OUTPUTS), ValueError, r"^labels: expected \[N\] for scores \[N\], got"),
        (
            lambda: metrics.log_loss(LABELS, OUTPUTS),
            ValueError,
            r"^probabilities\[0\]: expected prob",
        ),
        (lambda: metrics.log_loss(LABELS[:3], CHANCES), ValueError, r"^probabilities: expected \[N, C\] or \[N\]"),
        (lambda: metrics.f_beta(np.ones((2, 2)), 0.0), ValueError, r"^beta: expected a finite number in \(0"),
        (lambda: metrics.matthews_correlation(np.ones(3)), ValueError, r"^confusion: expected a square matrix"),
        (lambda: metrics.calibration_error(LABELS, CHANCES, bins=0), ValueError, r"^bins: expected an int in \[1"),
    ],
)
def test_what_a_score_is_not_defined_for_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
