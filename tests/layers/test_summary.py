"""The table and the picture of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import layers
from jaxopt_nn._jaxprs.flops import count_flops

SHAPE = jax.ShapeDtypeStruct
KEY = jax.random.key(0)


def model():
    """Two inputs, a repeated residual block, a shared layer, two outputs."""
    block = layers.residual(layers.serial(layers.dense(8), jnp.tanh))
    return layers.graph(
        {
            "first": (layers.serial(layers.dense(8), layers.batch_norm()), "a"),
            "deep": (layers.repeat(block, 5), "first"),
            "other": (layers.shared("first"), "b"),
            "both": (layers.concatenate, "deep", "other"),
            "score": (layers.dense(1), "both"),
        },
        inputs=("a", "b"),
        outputs=("score", "both"),
    )


X = {"a": SHAPE((32, 4), jnp.float32), "b": SHAPE((32, 4), jnp.float32)}


def test_rows_say_path_shape_sizes_and_sources():
    found = layers.describe(model(), X)
    assert [(row.path, row.inputs, row.output.shape, row.parameters, row.state, row.times) for row in found.rows] == [
        ("first/dense_0", ("a",), (32, 8), 40, 0, 1),
        ("first/batch_norm_0", ("first/dense_0",), (32, 8), 16, 16, 1),
        ("deep/residual_0/serial_0/dense_0", ("first/batch_norm_0",), (32, 8), 5 * 72, 0, 5),
        ("deep/residual_0/serial_0/tanh_0", ("deep/residual_0/serial_0/dense_0",), (32, 8), 0, 0, 5),
        ("deep/residual_0/add_0", ("deep/residual_0/serial_0/tanh_0", "first/batch_norm_0"), (32, 8), 0, 0, 5),
        ("other/dense_0", ("b",), (32, 8), 0, 0, 1),
        ("other/batch_norm_0", ("other/dense_0",), (32, 8), 0, 0, 1),
        ("both", ("deep/residual_0/add_0", "other/batch_norm_0"), (32, 16), 0, 0, 1),
        ("score", ("both",), (32, 1), 17, 0, 1),
    ]
    flops = {row.path: row.flops for row in found.rows}
    assert flops["first/dense_0"] == flops["other/dense_0"] == 32 * (2 * 4 * 8 + 8)
    assert flops["deep/residual_0/serial_0/dense_0"] == 5 * 32 * (2 * 8 * 8 + 8)
    assert flops["deep/residual_0/serial_0/tanh_0"] == flops["deep/residual_0/add_0"] == 5 * 32 * 8
    assert (flops["both"], flops["score"]) == (0, 32 * (2 * 16 + 1))
    assert found.outputs == ("score", "both")


def test_totals_are_those_of_the_whole_model():
    found, whole = layers.describe(model(), X), model()
    params, state = jax.eval_shape(whole.init, jax.random.key(0), X)
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found.state == sum(leaf.size for leaf in jax.tree.leaves(state))
    assert found.bytes == 4 * (found.parameters + found.state)

    def forward(params, state, x):
        return whole.apply(params, state, x)[0]

    flops, shapes = count_flops(forward, params, state, X)
    assert found.flops == flops
    assert found.output == shapes
    half = jax.tree.map(lambda leaf: SHAPE(leaf.shape, jnp.bfloat16), X)
    assert layers.describe(model(), half).bytes == 2 * found.parameters + 4 * found.state  # statistics stay float32


def test_a_layer_by_itself_and_a_plain_function_have_one_row():
    row, *none = layers.describe(jnp.tanh, SHAPE((2, 3), jnp.float32)).rows
    assert (row.path, row.inputs, row.flops, none) == ("tanh", ("input",), 6, [])
    found = layers.describe(layers.repeat(layers.dense(3), 1), np.ones((2, 3), "f"))
    assert [(row.path, row.parameters, row.flops) for row in found.rows] == [("dense_0", 12, 2 * (18 + 3))]


@pytest.mark.parametrize("masked", [False, True])
def test_a_transformer_block_shows_its_parts(masked):
    block, x = layers.transformer_block(2), SHAPE((3, 5, 4), jnp.float32)
    x = (x, SHAPE((3, 5), jnp.bool_)) if masked else x
    found = layers.describe(block, x)
    assert {row.path: row.parameters for row in found.rows if row.parameters} == {
        "attention_norm": 8, "attention": 4 * 20, "hidden_norm": 8, "hidden/dense_0": 5 * 16, "hidden/dense_1": 17 * 4
    }  # fmt: skip
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(block.init, KEY, x)))
    assert jax.tree.map(jnp.shape, found.output) == jax.tree.map(jnp.shape, x)


def test_the_table_prints_and_fits(capsys):
    deep, name = model(), "a_layer_with_a_long_name"
    for _ in range(6):
        deep = layers.graph({name: (deep, "a", "b")}, inputs=("a", "b"), outputs=name)
    for shown in (model(), deep):
        layers.summary(shown, X)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 100
        assert lines[0].split() == ["layer", "output", "in", "parameters", "state", "kept", "in", "bytes", "FLOPs"]
        assert "(x5)" in lines[4] and " 360 " in lines[4] and "[32, 8]" in lines[4]
        assert lines[-2].startswith("total") and " 433 " in lines[-2]
        assert lines[-1].startswith("FLOPs: one forward pass")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_400, "99.4 kB"), (999_600, "1.0 MB"), (7e12, "7.0 TB")],
)
def test_bytes_have_three_digits(number, text):
    assert layers.summary.__globals__["_scaled"](number, "B") == text


@pytest.mark.parametrize(
    ("fn", "shapes", "flops"),
    [
        (lambda x, w: x @ w, [(7, 5), (5, 3)], 2 * 7 * 5 * 3),
        (lambda a, b: jnp.einsum("nqhd,nkhd->nhqk", a, b), [(2, 3, 4, 5), (2, 6, 4, 5)], 2 * 2 * 4 * 3 * 6 * 5),
        (
            lambda x, w: jax.lax.conv(x, w, (1, 1), "VALID"),
            [(2, 3, 8, 8), (6, 3, 3, 3)],
            2 * (2 * 6 * 6 * 6) * (3 * 3 * 3),
        ),
        (lambda x: jnp.exp(x) + x, [(4, 5)], 40),
        (lambda x: jnp.sum(x, 0), [(4, 5)], 20),
        (lambda x: x.T.reshape(-1)[::2], [(4, 5)], 0),
    ],
)  # fmt: skip
def test_counts_are_those_of_xla_where_it_counts(fn, shapes, flops):
    args = [SHAPE(shape, jnp.float32) for shape in shapes]
    assert count_flops(fn, *args)[0] == flops
    theirs = jax.jit(fn).lower(*args).cost_analysis()
    # XLA counts exp apart, as a transcendental, and a reduction as one less for each result.
    np.testing.assert_allclose(theirs.get("flops", 0) + theirs.get("transcendentals", 0), flops, atol=5)


def test_loops_and_branches_are_counted():
    x = SHAPE((4,), jnp.float32)
    assert count_flops(lambda x: jax.lax.scan(lambda c, _: (c * 2, None), x, length=10)[0], x)[0] == 40
    assert count_flops(lambda x: jax.lax.cond(True, jnp.sin, lambda y: y * 2 + 1, x), x)[0] == 8
    assert count_flops(jax.jit(jax.checkpoint(jnp.sin)), x)[0] == 4
    assert count_flops(jax.nn.relu, x)[0] == 4


@pytest.mark.parametrize(
    ("layer", "shape", "flops"),
    [
        (layers.conv(6, 5), (1, 28, 28, 1), 2 * 28 * 28 * 25 * 6 + 28 * 28 * 6),
        (layers.conv(6, 5, lowering="patches"), (1, 28, 28, 1), 239_904),
        (layers.conv(4, 3, groups=2, use_bias=False), (2, 6, 5, 4), 2 * (2 * 6 * 5 * 4) * 9 * 2),
        (layers.depthwise_conv(3, use_bias=False), (2, 6, 5, 4), 2 * (2 * 6 * 5 * 4) * 9),
        # Each number of the input meets each entry of the window, for each output.
        (layers.conv_transpose(4, 3, stride=2, use_bias=False), (2, 5, 5, 3), 2 * (2 * 5 * 5 * 3) * 9 * 4),
        (
            layers.conv_transpose(4, 3, stride=2, groups=2, padding="VALID", use_bias=False),
            (1, 5, 6),
            2 * 5 * 6 * 3 * 2,
        ),
        (layers.max_pool(2), (3, 4, 4, 2), 3 * 2 * 2 * 2 * 4),
        (layers.max_pool(3, stride=1), (3, 4, 4, 2), 3 * 2 * 2 * 2 * 9),
    ],
)
def test_flops_are_those_of_the_formula_whatever_the_machine_does(layer, shape, flops):
    assert layers.describe(layer, SHAPE(shape, jnp.float32)).flops == flops


def test_programs_within_programs_are_counted():
    """Of every primitive that holds some, whatever a version of JAX calls its parameters."""

    def with_rules(kind):
        f = kind(jnp.sin)
        f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g,)) if kind is jax.custom_vjp else f.defjvps(
            lambda g, y, x: g
        )
        return f

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("data")
    x = SHAPE((4,), jnp.float32)
    for wrap in (
        jax.jit, jax.checkpoint, lambda f: with_rules(jax.custom_jvp), lambda f: with_rules(jax.custom_vjp),
        lambda f: lambda x: jax.lax.cond(x[0] > 0, f, lambda x: x, x),
        lambda f: lambda x: jax.lax.while_loop(lambda x: x[0] > 0, f, x),
        lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, length=1)[0],
        lambda f: jax.shard_map(f, mesh=mesh, in_specs=rows, out_specs=rows),
    ):  # fmt: skip
        assert count_flops(wrap(jnp.sin), x)[0] == 4
    assert count_flops(lambda x: x.at[jnp.array([0, 2])].add(x[:2], mode="drop"), x)[0] == 2
    assert count_flops(lambda x: jax.lax.reduce(x, 0.0, lambda a, b: a + b * b, (0,)), x)[0] == 4


def test_a_shape_for_an_input_is_named():
    with pytest.raises(TypeError, match=r"^x\[0\]: expected an array, or jax\.ShapeDtypeStruct\(.* got 6 of type int"):
        layers.summary(layers.dense(3), (6,))


def test_errors_carry_the_path():
    with pytest.raises(ValueError, match=r"^first/dense_0: expected input \[batch, \.\.\., features\]"):
        layers.describe(model(), {"a": SHAPE((3,), jnp.float32), "b": SHAPE((3,), jnp.float32)})


def test_the_picture_has_a_box_for_each_row_and_an_arrow_for_each_source():
    figure = layers.draw(model(), X, title="two inputs")
    figure.canvas.draw()
    (ax,) = figure.axes
    texts = {text.get_text().splitlines()[0]: text for text in ax.texts}
    found = layers.describe(model(), X)
    assert set(texts) == {"a", "b", "output"} | {row.path + ("  x5" if row.times == 5 else "") for row in found.rows}
    arrows = ax.patches
    assert len(arrows) == sum(len(row.inputs) for row in found.rows) + len(found.outputs)
    assert "360 parameters" in texts["deep/residual_0/serial_0/dense_0  x5"].get_text()
    boxes = [text.get_window_extent() for text in ax.texts]
    inside = figure.bbox
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1)
    assert figure.get_suptitle() == "two inputs"


def test_no_arrow_crosses_a_box():
    block = layers.residual(layers.serial(layers.dense(4), jnp.tanh, layers.dense(4)))
    figure = layers.draw(layers.serial(block, layers.residual(block)), SHAPE((2, 4), jnp.float32))
    figure.canvas.draw()
    (ax,) = figure.axes
    boxes = [text.get_window_extent() for text in ax.texts]
    curves = [ax.transData.transform(arrow.get_path().to_polygons(closed_only=False)[0]) for arrow in ax.patches]
    assert len(curves) == 13
    for curve in curves:
        at = np.linspace(0, len(curve) - 1, 400)
        points = np.stack([np.interp(at, np.arange(len(curve)), column) for column in curve.T], -1)
        assert not any(box.contains(*point) for box in boxes for point in points)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"drawing needs matplotlib: pip install 'jaxopt-nn\[plots\]'"):
        layers.draw(jnp.tanh, SHAPE((2, 3), jnp.float32))
