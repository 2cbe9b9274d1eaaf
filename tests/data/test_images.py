"""Images from a folder with a folder for each class."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxopt_nn import augment, data, layers, losses, optimizers, training
from jaxopt_nn.types import Batch

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 8, 6, 3)).astype(np.uint8)
CLASSES = (2, 0, 1, 10, 10)


@pytest.fixture
def folder(tmp_path):
    """Five images of 8 x 6 in folders named as numbers, one folder deep or two."""
    for index, (pixels, name) in enumerate(zip(PIXELS, CLASSES, strict=True)):
        path = tmp_path / str(name) / ("more" if index == 4 else "") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "2" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_images_keep_their_bytes_and_classes_are_numbers_in_order(folder):
    images = data.load_images(folder)
    assert images.classes == ("0", "1", "2", "10")
    assert images.batch.y.tolist() == [0, 1, 2, 3, 3] and images.batch.y.dtype == np.int32
    assert images.batch.x.dtype == np.uint8
    for row, path in zip(images.batch.x, images.paths, strict=True):
        assert np.array_equal(row, np.asarray(Image.open(path)))


def test_grey_and_size(folder):
    grey = data.load_images(folder, size=(4, 3), channels=1)
    expected = np.asarray(Image.fromarray(PIXELS[1]).convert("L").resize((3, 4), Image.Resampling.BILINEAR))
    assert grey.batch.x.shape == (5, 4, 3, 1) and np.array_equal(grey.batch.x[0, ..., 0], expected)
    square = data.load_images(folder, size=6)  # the middle of 8 x 6
    assert np.array_equal(square.batch.x[0], PIXELS[1][1:7])


def test_a_photo_is_turned_as_it_says(tmp_path):
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    Image.fromarray(PIXELS[0]).save(tmp_path / "a" / "1.png", exif=exif)
    assert np.array_equal(data.load_images(tmp_path).batch.x[0], np.rot90(PIXELS[0], -1))


def test_a_broken_image_is_named_and_the_others_kept(folder):
    (folder / "10" / "broken.png").write_bytes(b"no image")
    whole = (folder / "2" / "0.png").read_bytes()
    (folder / "1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"left out 2 of 7 images, which cannot be read: .*cut\.png .*broken\.png"):
        images = data.load_images(folder)
    assert images.batch.y.tolist() == [0, 1, 2, 3, 3] and len(images.paths) == 5
    with pytest.warns(UserWarning, match="left out 2 of 7"):
        assert sum(len(batch.y) for batch in data.stream_images(folder, 2, size=4)(0)) == 5


def test_a_stream_is_the_folder_in_a_new_order_each_epoch(folder):
    images = data.load_images(folder, size=5)
    in_order = list(data.stream_images(folder, 2, size=5)(3))
    assert [len(batch.y) for batch in in_order] == [2, 2, 1]
    assert np.array_equal(np.concatenate([batch.x for batch in in_order]), images.batch.x)
    stream = data.stream_images(folder, 2, size=5, key=jax.random.key(0))
    first, again, second = (np.concatenate([batch.x for batch in stream(epoch)]) for epoch in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    assert sorted(first.sum((1, 2, 3))) == sorted(second.sum((1, 2, 3))) == sorted(images.batch.x.sum((1, 2, 3)))


def test_channel_statistics_beside_numpy(folder):
    images = RNG.integers(0, 200, (600, 3, 2, 3)).astype(np.uint8)
    images[..., 2] = 7
    scaler = data.fit_channel_scaler(images)
    values = images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(scaler.shift, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scaler.scale, [*values.std(0)[:2], 1.0], rtol=1e-6)
    halves = data.fit_channel_scaler([images[:100], Batch(images[100:], None)])
    assert np.array_equal(halves.shift, scaler.shift) and np.array_equal(halves.scale, scaler.scale)
    floats = data.fit_channel_scaler(images.astype(np.float32))
    np.testing.assert_allclose(floats.scale, scaler.scale, rtol=1e-5)
    weight = np.zeros(600)
    weight[:5] = 1.0
    np.testing.assert_allclose(
        data.fit_channel_scaler(Batch(images, None, weight)).shift, images[:5].mean((0, 1, 2)), rtol=1e-6
    )
    scaled = data.transform(scaler, jnp.asarray(images))
    np.testing.assert_allclose(scaled[..., 0].mean(), 0.0, atol=1e-5)


@pytest.mark.slow
def test_bytes_are_trained_on_as_they_are():
    x = RNG.integers(0, 256, (32, 6, 6, 3)).astype(np.uint8)
    train = Batch(x, (x.mean((1, 2, 3)) > x.mean()).astype(np.int32))
    scaler = data.fit_channel_scaler(train)

    def recipe(rate):
        return training.Recipe(
            model=layers.serial(functools.partial(data.transform, scaler), layers.flatten, layers.dense(2)),
            loss=losses.softmax_cross_entropy,
            optimizer=optimizers.adam(rate),
            batch_size=8,
            epochs=10,
            augment=augment.chain(augment.random_flip_left_right(), augment.random_brightness(0.05)),
        )

    result = training.make_run(recipe)(jax.random.key(0), 0.01, train)
    assert result.history["train_loss"][-1] < 0.7 * result.history["train_loss"][0]


def test_classes_of_another_folder(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "10").mkdir()
    Image.fromarray(PIXELS[0]).save(other / "10" / "1.png")
    classes = data.find_images(folder).classes
    assert data.load_images(other, classes=classes).batch.y.tolist() == [3]
    with pytest.raises(ValueError, match=r"^classes: expected the folders of .* to be among \['1'\], found \['10'\]"):
        data.find_images(other, classes=["1"])


def save(pixels, path, **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize(
    ("spoil", "options", "error", "match"),
    [
        (
            lambda root: (root / "empty").mkdir(),
            {},
            ValueError,
            r"^folder: expected images in the folder of each class, fo",
        ),
        (
            lambda root: save(PIXELS[0][:3], root / "2" / "x.png"),
            {},
            ValueError,
            r"x\.png: expected the height and width",
        ),
        (
            lambda root: save(np.full((4, 4), 9000, np.uint16), root / "2" / "deep.png"),
            {"size": 4},
            ValueError,
            r"deep\.png: expected 8 bits a channel",
        ),
        (
            lambda root: (root / "bad").mkdir() or (root / "bad" / "1.png").write_bytes(b""),
            {},
            ValueError,
            r"^folder: no image can be read of the classes \['bad'\]",
        ),
        (None, {"channels": 2}, ValueError, r"^channels: expected 1 or 3, got 2"),
        (None, {"size": (3,)}, ValueError, r"^size: expected height and width"),
        (None, {"size": 2.5}, TypeError, r"^size: expected a positive int"),
        (None, {"classes": "ants"}, TypeError, r"^classes: expected a list of names"),
    ],
)
@pytest.mark.filterwarnings("ignore:left out")
def test_bad_folders(folder, spoil, options, error, match):
    if spoil is not None:
        spoil(folder)
    with pytest.raises(error, match=match):
        data.load_images(folder, **options)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^folder: expected a folder with a folder for each class, found none"):
        data.load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^folder: expected a folder for each class in .*, found none"):
        data.load_images(tmp_path)
    with pytest.raises(TypeError, match=r"^folder: expected the path of a folder, got 3"):
        data.find_images(3)
    with pytest.raises(TypeError, match=r"^images: expected uint8 in an iterable, got float32"):
        data.fit_channel_scaler([np.zeros((1, 2, 2, 3), np.float32)])
    with pytest.raises(ValueError, match=r"^images: expected \[N, ..., channels\], at least one"):
        data.fit_channel_scaler(np.zeros(3, np.uint8))
