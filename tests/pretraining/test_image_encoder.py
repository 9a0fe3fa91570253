import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import ctr_keras as ck
from ctr_keras.pretraining import ImageEncoder
from tests.pretraining.image_bytes import encoded, plain

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (8, 8, 3)).astype(np.uint8)


def seeing(size, framing="pad", **kwargs):
    """An encoder whose vector is the picture itself."""
    pictures = keras.Input((size, size, 3))
    flat = keras.layers.Flatten()(pictures)
    return ImageEncoder(keras.Model(pictures, flat), framing=framing, **kwargs)


def pictures_of(encoder, *images):
    return np.stack([encoder.picture(tf.constant(image)) for image in images])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def encoder():
    return ImageEncoder.small(width=6, size=16)


def test_a_picture_is_its_pixels(encoder):
    found = pictures_of(seeing(8), encoded(PIXELS), encoded(PIXELS, "BMP"))
    expected = (PIXELS / 127.5) - 1
    np.testing.assert_allclose(found, [expected, expected], atol=1e-6)
    by_color = seeing(8, mean=(1, 2, 3), std=[4, 5, 6])
    np.testing.assert_allclose(
        pictures_of(by_color, encoded(PIXELS))[0], (PIXELS - [1, 2, 3]) / [4, 5, 6], atol=1e-5
    )
    jpeg = pictures_of(seeing(8), plain((200, 30, 90), kind="JPEG"))[0]
    np.testing.assert_allclose(jpeg[3, 3], np.array([200, 30, 90]) / 127.5 - 1, atol=0.03)


def test_the_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (255, 0)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(pictures_of(seeing(8), file.getvalue()), 1, atol=0.02)


def test_gray_and_transparent_images():
    gray = encoded(PIXELS[:, :, 0])
    found = pictures_of(seeing(8), gray, encoded(np.dstack([PIXELS, PIXELS[:, :, :1]])))
    expected = (PIXELS / 127.5) - 1
    np.testing.assert_allclose(found[0], np.repeat(expected[:, :, :1], 3, axis=2), atol=1e-6)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)


def test_framing():
    wide = np.zeros((4, 8, 3))
    wide[:, :2], wide[:, 6:], wide[:, 2:6] = 255, 255, 51
    padded, cropped = (pictures_of(seeing(4, f), encoded(wide))[0] for f in ("pad", "crop"))
    np.testing.assert_array_equal(padded[[0, 3]], 0)  # Above and below, the mean.
    # A triangle of four pixels for each, cut off at the edge: (6 * 1 - 0.6) / 7 and so on.
    np.testing.assert_allclose(padded[1, :, 0], [5.4 / 7, -0.4, -0.4, 5.4 / 7], atol=1e-5)
    np.testing.assert_allclose(cropped, -0.6, atol=1e-5)
    for framing in ("pad", "crop"):  # As thin as can be.
        assert pictures_of(seeing(4, framing), plain(0, 1, 99)).shape == (1, 4, 4, 3)


def test_scaled_down_with_antialiasing():
    stripes = np.zeros((64, 64, 3))
    stripes[:, ::2] = 255
    found = pictures_of(seeing(8), encoded(stripes))[0]
    np.testing.assert_allclose(found[2:-2, 2:-2], 0, atol=0.02)


def test_an_image_that_is_not_there(encoder):
    image = encoded(PIXELS)
    together = encoder(tf.constant([image, b"", plain((9, 99, 200))])).numpy()
    alone = encoder(tf.constant([image])).numpy()
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), [1, 0, 1], atol=1e-5)
    for nothing in (tf.constant([b"", b""]), tf.zeros((0,), tf.string)):
        with tf.GradientTape() as tape:
            vectors = encoder(nothing, training=True)
            total = tf.reduce_sum(vectors**3)
        assert vectors.shape == (len(nothing), 6)
        for gradient in tape.gradient(total, encoder.trainable_variables):
            np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_the_mean_of_what_the_backbone_makes(shape):
    pictures = keras.Input((4, 4, 3))
    dense = keras.layers.Dense(int(np.prod(shape)))
    made = keras.layers.Reshape(shape)(dense(keras.layers.Flatten()(pictures)))
    encoder = ImageEncoder(keras.Model(pictures, made))
    image = encoded(PIXELS[:4, :4])
    flat = (PIXELS[:4, :4] / 127.5 - 1).reshape(1, -1)
    features = (flat @ dense.kernel.numpy()).reshape(1, -1, 5).mean(axis=1)
    np.testing.assert_allclose(encoder(tf.constant([image])), unit(features), atol=1e-5)
    assert encoder.width == 5


def test_encode_is_the_call(encoder, tmp_path):
    images = [plain((n * 20, 255 - n * 20, n)) for n in range(7)]
    expected = encoder(tf.constant([*images, b""])).numpy()
    found = encoder.encode([*images, b""], batch_size=3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and encoder.encode([]).shape == (0, 6)
    for n, image in enumerate(images):
        (tmp_path / f"{n}.png").write_bytes(image)
    by_path = encoder.encode([tmp_path / "2.png", str(tmp_path / "5.png")])
    np.testing.assert_allclose(by_path, expected[[2, 5]], atol=1e-5)
    with pytest.raises(FileNotFoundError, match="none.png"):
        encoder.encode([tmp_path / "none.png"])


@pytest.mark.parametrize("cut", [lambda b: b[: len(b) // 2], lambda b: b"no image" + b])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_corrupt_images_are_named_or_passed_over(encoder, tmp_path, cut, kind):
    good = encoded(RNG.integers(0, 256, (32, 32, 3)), kind)
    images = [good, cut(good), good, cut(good)]
    with pytest.raises(ValueError, match=r"row 1 of `images` cannot .*\((Invalid|Unknown|jpeg)"):
        encoder.encode(images)
    (tmp_path / "bad.jpg").write_bytes(cut(good))
    with pytest.raises(ValueError, match=r"bad.jpg cannot be decoded.*`skip_corrupt`"):
        encoder.encode([tmp_path / "bad.jpg"])
    with pytest.raises(ValueError, match=r"row 3 of `images` cannot be decoded"):
        encoder.encode([good, b"", good, cut(good)], batch_size=2)
    lines = []
    found = encoder.encode(images, 3, skip_corrupt=True, report=lines.append)
    np.testing.assert_array_equal(found.any(axis=1), [True, False, True, False])
    assert lines == ["2 of 4 images cannot be decoded: row 1 of `images`, row 3 of `images`"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        encoder.picture(tf.constant(images[1]))


def test_saved_and_exported_alike(encoder, tmp_path):
    images = tf.constant([encoded(PIXELS), plain(7, 3, 9), b""])
    expected = encoder(images).numpy()
    encoder.save(tmp_path / "encoder.keras")
    loaded = ImageEncoder.from_preset(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded(images), expected)
    assert json.dumps(loaded.get_config()) == json.dumps(encoder.get_config())
    serve = tf.function(encoder.call, input_signature=[tf.TensorSpec((None,), tf.string)])
    module = tf.Module()
    module.weights, module.encode = [v.value for v in encoder.variables], serve
    tf.saved_model.save(module, str(tmp_path / "saved"))
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(saved.encode(images), expected, atol=1e-6)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    encoder = ImageEncoder.small(width=6, size=16)
    vector = encoder(tf.constant([encoded(PIXELS)]))
    assert vector.dtype == tf.float32 and abs(np.linalg.norm(vector) - 1) < 1e-5


def test_only_the_last_layers_learn(encoder):
    model = ImageEncoder.from_config(encoder.get_config())
    model.train_last(2)
    names = {v.path.split("/")[0].rstrip("_0123456789") for v in model.trainable_variables}
    assert names == {"features", "group_normalization"}
    assert ImageEncoder.from_config(model.get_config()).trained_layers == 2
    model.train_last(0)
    assert not model.trainable_variables
    with pytest.raises(ValueError, match="from 0 to 13.*`layers=14`"):
        model.train_last(14)
    model.train_last(None)
    assert len(model.trainable_variables) == len(encoder.trainable_variables)
    assert ImageEncoder.from_config(model.get_config()).trained_layers is None


@pytest.mark.parametrize("is_flat", [True, False])
def test_a_linear_layer_behind_the_mean(is_flat, tmp_path):
    pictures = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(5, 3)(pictures)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    encoder = ImageEncoder(keras.Model(pictures, pooled if is_flat else features), mean=9, std=7)
    found = encoder.projected(4)
    assert found.width == 4 and found.mean == (9, 9, 9)
    images = [encoded(PIXELS), b""]
    kernel = found.backbone.get_layer("projection").kernel.numpy()
    expected = unit(encoder.encode(images)[:1] @ kernel)
    np.testing.assert_allclose(found.encode(images), [*expected, np.zeros(4)], atol=1e-6)
    found.train_last(1)
    assert [v.path for v in found.trainable_variables] == ["projection/kernel"]
    found.save(tmp_path / "encoder.keras")
    loaded = ImageEncoder.from_preset(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(loaded.encode(images), found.encode(images))
    with pytest.raises(ValueError, match="`width=0`"):
        encoder.projected(0)
    encoder.train_last(0)
    found = encoder.projected(4)
    assert found.trained_layers == 1 and len(found.trainable_variables) == 1
    found.train_last(None)
    assert len(found.trainable_variables) == 3


def test_a_contrastive_model_learns_kinds_of_pictures(tmp_path):
    colors = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 20)]

    def noisy():
        return [encoded(np.clip(c + RNG.normal(0, 60, (8, 8, 3)), 0, 255)) for c in colors]

    pictures = keras.Input((8, 8, 3))
    features = keras.layers.Dense(8)(keras.layers.Conv2D(8, 3, activation="relu")(pictures))
    encoder = ImageEncoder(keras.Model(pictures, features))
    model = ck.pretraining.ContrastiveModel(
        encoder, bank_size=8, momentum=0.8, triplet_weight=0, temperature=0.2
    )
    model.compile(keras.optimizers.Adam(1e-2))
    for _ in range(15):  # Eager steps: tracing would take longer than all of them.
        batch = {"query": tf.constant(noisy()), "item": tf.constant(noisy())}
        model.train_step({**batch, "item_id": tf.range(4)})
    queries, items = (encoder.encode(noisy()) for _ in range(2))
    assert ck.metrics.top_n_accuracy(queries, items) == 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for part in ("encoder", "slow_encoder"):
        vectors = (getattr(m, part)(batch["query"]) for m in (loaded, model))
        np.testing.assert_array_equal(*vectors)
    assert np.abs(model.slow_encoder(batch["query"]) - model(batch["query"])).max() > 1e-3


def test_bad_arguments(encoder, tmp_path):
    with pytest.raises(ValueError, match="`framing='fill'`"):
        ImageEncoder.small(framing="fill")
    with pytest.raises(ValueError, match="`std=0`"):
        ImageEncoder.small(std=0)
    with pytest.raises(ValueError, match=r"one for each color. Received: `mean=\[1, 2\]`"):
        ImageEncoder.small(mean=[1, 2])
    with pytest.raises(ValueError, match="`width=0`"):
        ImageEncoder.small(width=0)
    with pytest.raises(ValueError, match="`batch_size=0`"):
        encoder.encode([b""], batch_size=0)
    with pytest.raises(ValueError, match="one of efficientnet-lite0.*`preset='no'`"):
        ImageEncoder.from_preset("no")
    with pytest.raises(ValueError, match="needs model.weights.h5 or"):
        ImageEncoder.from_preset(tmp_path)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "x.keras")
    with pytest.raises(ValueError, match="holds no image encoder"):
        ImageEncoder.from_preset(tmp_path / "x.keras")
    for shape in [(4,), (None, None, 3), (4, 4, 1), (4, 5, 3)]:
        inputs = keras.Input(shape)
        with pytest.raises(ValueError, match="`backbone` must"):
            ImageEncoder(keras.Model(inputs, keras.layers.ReLU()(inputs)))
