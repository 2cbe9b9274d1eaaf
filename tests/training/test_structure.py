"""What makes a run fast, read from its program: nothing here is timed.

Row 1 of the benchmarks (a 64-64-32-10 network, batch 32, Adam, validation, early stopping) is compiled once, with the
quickest settings of XLA, and what its loop of steps holds is counted. The bounds are what there is today: a change that
adds a kernel to every step has to raise one, and say why.
"""

import re
from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from jaxopt_nn import layers, losses, metrics, optimizers, training
from jaxopt_nn.types import Batch

QUICKEST = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
# What the compiler makes of a program is the compiler's: counted with the version that is developed with.
counted = pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.__version_info__ < (0, 10),
    reason="the counts are those of XLA for CPUs, 2026",
)


def _mlp(drop_rate=None):
    drop = [] if drop_rate is None else [layers.dropout(drop_rate)]
    return layers.serial(layers.dense(64), jax.nn.relu, *drop, layers.dense(32), jax.nn.relu, *drop, layers.dense(10))


def _lenet(*, normalized=False, **options):
    norm = [layers.batch_norm()] if normalized else []
    return layers.serial(
        layers.conv(6, 5, **options), *norm, jax.nn.relu, layers.max_pool(2),
        layers.conv(16, 5, padding="VALID", **options), *norm, jax.nn.relu, layers.max_pool(2),
        layers.flatten, layers.dense(120), jax.nn.relu, layers.dense(10),
    )  # fmt: skip


def row_1_run(model, *, lanes=0, epochs=30, traces=None):
    """The run of row 1, of 320 examples, and its arguments; ``traces`` gets what the recipe is called with."""

    def recipe(hp):
        if traces is not None:
            traces.append(hp)
        return training.Recipe(
            model=model,
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(hp),
            metrics={"accuracy": metrics.accuracy},
            batch_size=32,
            epochs=epochs,
            early_stopping=training.EarlyStopping(patience=5),
        )

    batch = Batch(jnp.zeros((320, 64)), jnp.zeros(320, int))
    run, keys = training.make_run(recipe), training.RunKeys(*jax.random.split(jax.random.key(0), 3))
    if not lanes:
        return run, keys, 1e-3, batch, batch
    run = jax.vmap(run, (training.RunKeys(0, None, 0), 0, None, None))
    init, noise = jax.random.split(keys.init, lanes), jax.random.split(keys.noise, lanes)
    return run, training.RunKeys(init, keys.order, noise), jnp.ones(lanes), batch, batch


def lowered(model, **options):
    run, *arguments = row_1_run(model, **options)
    return jax.jit(run).lower(*arguments)


def computations(hlo):
    """The opcodes of each computation, by its name."""
    found, opcodes = {}, []
    for line in hlo.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            opcodes = found.setdefault(head[1], [])
        elif " = " in line:
            opcodes += re.findall(r"(?:^|[\]})] )([a-z][\w-]*)\(", line.split(" = ", 1)[1])[:1]
    return {name: Counter(opcodes) for name, opcodes in found.items()}


@pytest.fixture(scope="module")
def row_1():
    """What the recipe was called with, the program before the compiler, and after it."""
    traces = []
    program = lowered(_mlp(), traces=traces)
    return SimpleNamespace(traces=traces, before=program.as_text(), after=program.compile(QUICKEST).as_text())


@counted
def test_kernels_in_the_loop_of_steps(row_1):
    """The loop of steps is the computation with the most matrix products that are not the validation's."""
    found = computations(row_1.after)
    step = max(found.values(), key=lambda ops: (ops["dot"], ops.total()))
    assert step["dot"] == 3  # one for each layer; products with few outputs are inside of fusions
    assert step["fusion"] <= 23
    assert step["copy"] <= 3  # counters
    # No loop: the noise key costs nothing where no layer draws. The branch is the guard: it holds the update.
    assert step["while"] == step["call"] == 0 and step["conditional"] == 1
    branches = re.findall(r"branch_computations=\{%([\w.-]+), %([\w.-]+)\}", row_1.after)
    update = max((found[taken] for _, taken in branches if not found[taken]["while"]), key=lambda ops: ops["fusion"])
    assert update["fusion"] <= 22  # 18 write parameters and moments
    assert update["copy"] == 0  # the update writes over the old state


@counted
def test_kernels_of_the_whole_run(row_1):
    """Compile time follows their number: with ``jax.random``'s own loops for keys and draws there were 134."""
    found = computations(row_1.after)
    assert sum(ops["fusion"] for ops in found.values()) <= 83
    assert sum(ops["while"] for ops in found.values()) == 2  # epochs and steps


@counted
def test_programs_of_the_same_size_for_any_number_of_epochs(row_1):
    longer = lowered(_mlp(), epochs=10_000).compile(QUICKEST).as_text()
    total = [sum(ops.total() for ops in computations(text).values()) for text in (row_1.after, longer)]
    assert total[0] == total[1] > 1000


def test_the_device_is_left_to_itself(row_1):
    """No call of the host, no transfer, inside or outside of the loop."""
    for word in ("callback", "infeed", "outfeed", " send(", " recv(", "host"):
        assert word not in row_1.after
    assert re.findall(r"custom_call_target=\"(\w+)\"", row_1.after) == []


def test_lanes_are_traced_once_as_a_single_run_is(row_1):
    traces = []
    jax.eval_shape(*row_1_run(_mlp(), lanes=7, traces=traces))
    assert 0 < len(traces) == len(row_1.traces)


@counted
def test_products_in_lanes_have_no_transposed_matrix():
    """XLA is slow at those where they are small: here all are of [lanes, rows, inner] and [lanes, inner, columns].

    Forward and validation 3 each, gradients of 3 kernels and of 2 inputs. It is slow at rows of 10 numbers too: so the
    training's outputs are made as [lanes, 10, rows], and 10 columns have the validation's and the last gradient.
    """
    text = lowered(_mlp(), lanes=3).compile(QUICKEST).as_text()
    products = r"f32\[3,\d+,(\d+)\]\S* dot\(.*lhs_contracting_dims=\{(\d)\}.*rhs_contracting_dims=\{(\d)\}"
    columns, *contracted = zip(*re.findall(products, text), strict=True)
    assert list(zip(*contracted, strict=True)) == [("2", "1")] * 11
    assert columns.count("10") == 2


@counted
def test_losses_of_a_few_classes_are_computed_along_the_examples():
    """32 of the batch and 320 of the validation, where rows of 10 would not fill a vector."""
    text = lowered(_mlp(), lanes=3).compile(QUICKEST).as_text()
    assert set(re.findall(r" = f32\[([\d,]+)\]\{2,1,0\} exponential\(", text)) == {"3,10,32", "3,10,320"}


@counted
def test_lanes_update_their_state_in_place():
    """The guard's choice, made after the update, would copy both moments of each leaf first, 12 arrays."""
    text = lowered(_mlp(), lanes=3).compile(QUICKEST).as_text()
    found = computations(text)
    step = max((ops for ops in found.values() if not ops["while"]), key=lambda ops: ops["fusion"])
    assert step["fusion"] >= 18  # parameters and moments
    assert step["copy"] <= 2 and step["conditional"] == 0  # counters are copied
    joined = re.findall(r" = f32\[3,(\d+)\]\S* concatenate\(", text)
    assert joined == ["426"]  # for the norm: three biases and the last kernel, not the two that are larger


def test_kernels_in_lanes_make_no_grouped_convolution():
    """They would, natively, and XLA is slow at those (benchmarks/layers.py)."""

    def groups(lowering):
        model, x = _lenet(lowering=lowering), jnp.zeros((4, 28, 28, 1))

        def loss(params):
            return jnp.sum(model.apply(params, {}, x, train=True, key=None, weight=None)[0])

        params = jax.eval_shape(lambda key: model.init(key, x)[0], jax.random.key(0))
        lanes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((3, *leaf.shape), leaf.dtype), params)
        program = jax.jit(jax.vmap(jax.grad(loss))).lower(lanes)
        # Elsewhere the program still has both ways, of which the compiler leaves one.
        text = program.as_text() if jax.default_backend() == "cpu" else program.compile().as_text()
        return {int(number) for number in re.findall(r"(?:feature|batch)_group_count ?= ?(\d+)", text)}

    assert 3 in groups("native")  # what is looked for is what such a program says
    assert groups("auto") <= {1}


def _gradients_of_lenet(**options):
    model, x = _lenet(**options), jnp.zeros((64, 28, 28, 1))  # as large a batch as XLA needs to turn back what it can
    params, state = jax.eval_shape(lambda key: model.init(key, x), jax.random.key(0))

    def loss(params, state):
        return jnp.sum(model.apply(params, state, x, train=True, key=None, weight=None)[0] ** 2)

    return jax.jit(jax.grad(loss)).lower(params, state).compile(QUICKEST).as_text()


@counted
@pytest.mark.parametrize("normalized", [False, True])
def test_lenet_is_computed_with_the_batch_innermost(normalized):
    """And so is all between its convolutions: nothing is copied to the order that the layers' axes are said to have."""
    text = _gradients_of_lenet(normalized=normalized)
    for size, features in ((28, 6), (14, 6), (10, 16)):
        assert f"[64,{size},{size},{features}]" not in text
        assert f"[{features},{size},{size},64]" in text
    assert " while(" not in text and " convolution(" not in text


@counted
def test_branches_of_lenet():
    """What no other kernel takes in: maxima, what they hand back, sums of patches' gradients, columns dealt back."""
    text, array = _gradients_of_lenet(), r"(f32|s8)\[([\d,]+)\]\S*"
    with_places = {("f32", size, "s8", size) for size in ("6,14,14,64", "16,5,5,64")}
    assert with_places <= set(re.findall(rf" = \({array}, {array}\) conditional\(", text))
    branches = [size for _, size in re.findall(rf" = \({array}\) conditional\(", text)]
    handed_back = ["6,14,2,14,2,64", "16,5,2,5,2,64"]
    assert sorted(branches) == sorted([*handed_back, "30,14,10,64", "6,14,14,64", "24,28,7,64"])


@counted
def test_places_of_maxima_are_for_gradients_alone():
    """The branch makes both; where nobody asks for the places, none are left."""
    model, x = _lenet(), jnp.zeros((64, 28, 28, 1))
    params, state = jax.eval_shape(lambda key: model.init(key, x), jax.random.key(0))

    def outputs(params, state):
        return model.apply(params, state, x, train=False, key=None, weight=None)[0]

    text = jax.jit(outputs).lower(params, state).compile(QUICKEST).as_text()
    assert "conditional(" in text and "s8[" not in text
    assert "s8[" in _gradients_of_lenet()


@counted
def test_patches_of_lenet_are_copied_in_long_rows():
    """Of the batch alone, 64 numbers at a time, copies take two to three times as long."""
    rows = re.findall(r" = f32\[\d+,1,(\d+)\]\S* concatenate\(", _gradients_of_lenet())
    assert sorted(map(int, rows)) == [7 * 64, 10 * 64, 10 * 10 * 64, 28 * 7 * 64]


def test_dropout_draws_in_bulk(row_1):
    """A hash of 20 rounds makes four units, so 2,048 units take 512; in a branch, where no kernel takes them in."""

    def found(text):
        shifts = re.findall(r"stablehlo\.shift_left .*tensor<(\d+)xui32>", text)
        return Counter(map(int, shifts)), text.count("stablehlo.case")

    (with_it, branches), (without, other_branches) = found(lowered(_mlp(0.2)).as_text()), found(row_1.before)
    extra = with_it - without
    assert {size: rounds for size, rounds in extra.items() if size > 8} == {32 * 64 // 4: 20, 32 * 32 // 4: 20}
    if jax.default_backend() == "cpu":  # elsewhere there is no need of a branch
        assert branches - other_branches == 2


@counted
def test_dropout_computes_each_hash_once():
    """What fuses hashes into what uses them, or makes a kernel for each of their words, has more exclusive ors."""
    text = lowered(_mlp(0.2)).compile(QUICKEST).as_text()
    sizes = Counter(map(int, re.findall(r" = u32\[(\d+)\]\S* xor\(", text)))
    assert sizes[512] == sizes[256] == 20


def test_a_donated_state_is_updated_in_place():
    def loss_fn(params, model_state, batch, key):
        outputs, model_state = model.apply(params, model_state, batch.x, train=True, key=key, weight=None)
        return losses.weighted_mean(losses.softmax_cross_entropy(outputs, batch.y)), (model_state, {})

    model, optimizer = _mlp(0.2), optimizers.adam(1e-3)
    batch = Batch(jnp.zeros((32, 64)), jnp.zeros(32, int))

    def begin(key):
        params, model_state = model.init(key, batch.x)
        return training.init_state(params, optimizer, key, model_state)

    state = jax.eval_shape(begin, jax.random.key(0))
    text = jax.jit(training.make_step(loss_fn, optimizer), donate_argnums=0).lower(state, batch).as_text()
    assert text.count("tf.aliasing_output") == len(jax.tree.leaves(state))


@counted
def test_no_kernel_of_a_small_step_is_split_over_threads():
    """Handing a part of a few microseconds' work to another thread takes longer than the work."""
    text = lowered(_mlp(0.2)).compile(QUICKEST).as_text()
    of_the_batch = [line for line in text.splitlines() if re.search(r" = f32\[32,\d+\]\S* fusion\(", line)]
    assert len(of_the_batch) >= 8  # activations and their cotangents
    assert not [line for line in of_the_batch if 'outer_dimension_partitions":["' in line]
