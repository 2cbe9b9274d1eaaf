"""Torch's recurrent layers, attention and whole modules become ours: same outputs, same training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import interop, layers, optimizers, training
from jaxopt_nn.types import Batch

torch = pytest.importorskip("torch")
nn = torch.nn
RNG = np.random.default_rng(0)
SEQUENCES = RNG.normal(size=(3, 7, 4)).astype("f")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(layers.simple_rnn(5), nn.RNN), (layers.lstm(5), nn.LSTM), (layers.gru(5), nn.GRU)],
    ids=["simple_rnn", "lstm", "gru"],
)
def test_recurrent_layers(ours, theirs):
    torch.manual_seed(0)
    module = theirs(4, 5, batch_first=True)
    variables = jax.eval_shape(ours.init, jax.random.key(0), jnp.asarray(SEQUENCES))
    names = {ours.name: "rnn"}
    weights = {f"rnn.{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    params, state = interop.from_torch(ours, variables, weights, names)
    with torch.no_grad():
        expected = module(torch.from_numpy(SEQUENCES))[0].numpy()
    np.testing.assert_allclose(ours.apply(params, state, SEQUENCES)[0], expected, atol=1e-6)
    back = interop.to_torch(ours, (params, state), names)
    module.load_state_dict({name[4:]: torch.from_numpy(array) for name, array in back.items()})
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(SEQUENCES))[0].numpy(), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"kernel is \[4, \d+\], rnn\.weight_ih_l0 makes it \[3, \d+\]"):
        short = weights | {"rnn.weight_ih_l0": weights["rnn.weight_ih_l0"][:, :3]}
        interop.from_torch(ours, variables, short, names)


@pytest.mark.parametrize("bias", [True, False])
def test_attention(bias):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(4, 2, batch_first=True, bias=bias)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    ours = layers.multi_head_attention(2, use_bias=bias)
    others = RNG.normal(size=(3, 5, 4)).astype("f")
    mask = np.arange(5) < np.array([[5], [3], [2]])
    variables = jax.eval_shape(ours.init, jax.random.key(0), (jnp.asarray(SEQUENCES), jnp.asarray(others)))
    names = {"multi_head_attention": ""}
    params, state = interop.from_torch(ours, variables, module.state_dict(), names)
    q, v = torch.from_numpy(SEQUENCES), torch.from_numpy(others)
    with torch.no_grad():
        expected = module(q, v, v, key_padding_mask=torch.from_numpy(~mask))[0].numpy()
    np.testing.assert_allclose(ours.apply(params, state, (SEQUENCES, others, mask))[0], expected, atol=1e-5)
    back = interop.to_torch(ours, (params, state), names)
    assert back.keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(back[name], tensor.numpy())


def convolutional_network():
    """Strides, groups, paddings; flattened with the channels first; softmax and dropout in the head."""
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8, momentum=0.2),
        nn.GELU(),
        nn.Conv2d(8, 8, 3, padding="same", groups=4, bias=False),
        nn.GroupNorm(2, 8),
        nn.MaxPool2d(3, 2, padding=1),
        nn.AvgPool2d(2, 1, padding=1),
    )
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 4 * 4, 6), nn.LayerNorm(6), nn.LeakyReLU(), nn.Linear(6, 3))
    return nn.Sequential(body, head), RNG.normal(size=(64, 11, 11, 3)).astype("f")


def mobile_network():
    parts = nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU6(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*parts, nn.Tanh(), nn.BatchNorm1d(3)), RNG.normal(size=(64, 7, 4)).astype("f")


def words():
    parts = nn.Embedding(11, 4), nn.LayerNorm(4), nn.Linear(4, 5), nn.SiLU(), nn.Flatten(), nn.Linear(35, 3)
    return nn.Sequential(*parts), RNG.integers(0, 11, (64, 7))


def as_torch(x):
    x = torch.from_numpy(x)
    return x.moveaxis(-1, 1).contiguous() if x.ndim > 2 else x


@pytest.mark.parametrize("make", [convolutional_network, mobile_network, words], ids=lambda make: make.__name__)
def test_a_module_has_the_same_predictions_and_goes_on_training(make):
    torch.manual_seed(0)
    module, x = make()
    ours = interop.from_torch_module(module, x)
    with torch.no_grad():
        expected = module.eval()(as_torch(x)).numpy()
    np.testing.assert_allclose(ours.layer.apply(ours.params, ours.model_state, x)[0], expected, atol=1e-5)
    labels = RNG.integers(0, 3, 64)
    theirs = torch.optim.SGD(module.train().parameters(), 0.05, momentum=0.9)
    optimizer = optimizers.sgd(0.05, 0.9, convention="torch")

    def loss_fn(params, state, batch, key):
        y, state = ours.layer.apply(params, state, batch.x, train=True, key=key)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(y), batch.y[:, None], 1)), (state, {})

    step = jax.jit(training.make_step(loss_fn, optimizer))
    state = training.init_state(ours.params, optimizer, model_state=ours.model_state, key=jax.random.key(0))
    curves = []
    for start in 3 * [0, 16, 32, 48]:
        rows = slice(start, start + 16)
        state, metrics = step(state, Batch(x[rows], labels[rows]))
        theirs.zero_grad()
        loss = nn.functional.cross_entropy(module(as_torch(x[rows])), torch.from_numpy(labels[rows]))
        loss.backward()
        theirs.step()
        curves.append((float(metrics["loss"]), loss.item()))
    one, other = np.transpose(curves)
    np.testing.assert_allclose(one, other, rtol=2e-4)
    back = interop.to_torch(ours.layer, (state.params, state.model_state), ours.names)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(back[name], tensor.numpy(), atol=1e-3, err_msg=name)


def test_what_is_not_supported_is_named_with_its_path():
    class Own(nn.Module):
        def forward(self, x):
            return x

    inner = nn.Sequential(nn.Conv2d(3, 4, 3, padding_mode="circular"), nn.PixelShuffle(2), Own())
    module = nn.Sequential(inner, nn.Flatten(), nn.LayerNorm((2, 4)))
    with pytest.raises(ValueError, match=r"^module: not supported: 0\.0 \(Conv2d: padding_mode='circular'\); ") as info:
        interop.from_torch_module(module, np.ones((1, 8, 8, 3), "f"))
    assert "0.1 (PixelShuffle); 0.2 (Own); 2 (LayerNorm: normalized_shape=(2, 4))" in str(info.value)
    image = np.ones((1, 8, 8, 3), "f")
    for module, message in (
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(6, 2)), r"1 \(Linear: after modules that have the channels first"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(-1)), r"1 \(Softmax: dim=-1\)"),
        (nn.Sequential(nn.LSTM(3, 4)), r"0 \(LSTM\)"),
    ):
        with pytest.raises(ValueError, match=message):
            interop.from_torch_module(module, image)
    for module in (nn.Linear, 3, lambda x: x):
        with pytest.raises(TypeError, match=r"^module: expected a module of PyTorch, got"):
            interop.from_torch_module(module, image)
