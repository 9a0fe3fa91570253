import collections
import io
import os
import pathlib
import pickle
import sys
import types

import keras
import matplotlib
import numpy as np
import pytest
import tensorflow as tf

from ctr_keras.pretraining import ImageEncoder, image_weights
from ctr_keras.pretraining.efficientnet_lite import efficientnet_lite0, set_torch_weights
from ctr_keras.pretraining.torch_weights import read_torch_weights
from tests.pretraining.image_bytes import encoded

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (16, 16, 3)).astype(np.uint8)


class Storage:
    def __init__(self, array, kind):
        self.array, self.kind = array, kind


class TorchPickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", obj.kind, str(id(obj)), "cpu", obj.array.size, None)
        return None


def torch_file(monkeypatch, arrays):
    """A state dict as PyTorch before 1.6 saved it; kernels channels last."""
    names = {"torch": ["FloatStorage", "LongStorage"], "torch._utils": ["_rebuild_tensor_v2"]}
    for module, functions in names.items():
        fake = types.ModuleType(module)
        for name in functions:
            stand_in = types.FunctionType((lambda *args: args).__code__, {}, name)
            stand_in.__module__, stand_in.__qualname__ = module, name
            setattr(fake, name, stand_in)
        monkeypatch.setitem(sys.modules, module, fake)
    torch, utils = sys.modules["torch"], sys.modules["torch._utils"]

    class Tensor:
        def __init__(self, array):
            order = (2, 3, 1, 0) if array.ndim == 4 else tuple(range(array.ndim))
            kind = torch.FloatStorage if array.dtype == np.float32 else torch.LongStorage
            self.storage = Storage(array.transpose(order).copy("C"), kind)
            view = self.storage.array.transpose(np.argsort(order))
            strides = tuple(s // array.itemsize for s in view.strides)
            self.args = (self.storage, 0, array.shape, strides, False, collections.OrderedDict())

        def __reduce__(self):
            return utils._rebuild_tensor_v2, self.args

    tensors = collections.OrderedDict((name, Tensor(a)) for name, a in arrays.items())
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors):
        TorchPickler(file, protocol=2).dump(part)
    storages = {str(id(t.storage)): t.storage.array for t in tensors.values()}
    TorchPickler(file, protocol=2).dump(list(storages))
    for array in storages.values():
        file.write(array.size.to_bytes(8, "little") + array.tobytes())
    return file.getvalue()


def test_weights_of_pytorch_are_read(monkeypatch):
    arrays = {
        "a.weight": RNG.normal(size=(2, 3, 4, 5)).astype(np.float32),
        "a.bias": np.float32([1, 2]),
        "count": np.array(7),
    }
    content = torch_file(monkeypatch, arrays)
    found = read_torch_weights(content, "x.pth")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    for cut in (content[:-3], content[:200], b"", b"junk", content.replace(b"FloatS", b"DoubleS")):
        with pytest.raises(ValueError, match=r"x.pth holds no weights that can be read"):
            read_torch_weights(cut, "x.pth")


def test_a_pickle_calls_nothing(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    content = b"".join(
        pickle.dumps(part, 2)
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": Harm()}, [])
    )
    with pytest.raises(ValueError, match=r"names \w+.mkdir, which weights do not need"):
        read_torch_weights(content, "x.pth")
    assert not (tmp_path / "harm").exists()


BLOCKS = [  # Kernel, stride, inner and outer filters of EfficientNet-B0's blocks.
    (3, 1, 32, 16), (3, 2, 96, 24), (3, 1, 144, 24), (5, 2, 144, 40), (5, 1, 240, 40),
    (3, 2, 240, 80), (3, 1, 480, 80), (3, 1, 480, 80), (5, 1, 480, 112), (5, 1, 672, 112),
    (5, 1, 672, 112), (5, 2, 672, 192), (5, 1, 1152, 192), (5, 1, 1152, 192), (5, 1, 1152, 192),
    (3, 1, 1152, 320),
]  # fmt: skip


def random_weights():
    weights = {}

    def convolution(name, norm, out, into, kernel):
        scale = 1.5 / np.sqrt(into * kernel * kernel)
        weights[f"{name}.weight"] = RNG.normal(0, scale, (out, into, kernel, kernel))
        for part, mean in {"weight": 1, "bias": 0.3, "running_mean": 0, "running_var": 1}.items():
            weights[f"{norm}.{part}"] = np.abs(RNG.normal(mean, 0.1, out))
        weights[f"{norm}.num_batches_tracked"] = np.array(3)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    before = 32
    for n, (kernel, _, inner, outer) in enumerate(BLOCKS):
        block = f"_blocks.{n}"
        if inner != before:
            convolution(f"{block}._expand_conv", f"{block}._bn0", inner, before, 1)
        convolution(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel)
        convolution(f"{block}._project_conv", f"{block}._bn2", outer, inner, 1)
        before = outer
    convolution("_conv_head", "_bn1", 1280, 320, 1)
    weights["_fc.weight"] = np.zeros((1000, 1280))
    return {name: np.asarray(w, np.float32) for name, w in weights.items()}


def features_by_hand(weights, picture):
    """The network by loops over kernels, from PyTorch's arrays."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def convolution(x, name, norm, stride=1):
        kernel = w[f"{name}.weight"]
        size, side = kernel.shape[-1], -(-x.shape[0] // stride)
        total = max((side - 1) * stride + size - x.shape[0], 0)
        x = np.pad(x, [(total // 2, total - total // 2)] * 2 + [(0, 0)])
        y = 0
        for i in range(size):
            for j in range(size):
                last = (side - 1) * stride + 1
                part = x[i : i + last : stride, j : j + last : stride]
                is_depthwise = "depthwise" in name
                tap = kernel[:, :, i, j]
                y = y + (part * tap[:, 0] if is_depthwise else part @ tap.T)
        scale = w[f"{norm}.weight"] / np.sqrt(w[f"{norm}.running_var"] + 1e-3)
        return (y - w[f"{norm}.running_mean"]) * scale + w[f"{norm}.bias"]

    def active(x):
        return np.clip(x, 0, 6)

    x = active(convolution(picture, "_conv_stem", "_bn0", 2))
    for n, (_, stride, _, _) in enumerate(BLOCKS):
        block, y = f"_blocks.{n}", x
        if f"{block}._expand_conv.weight" in w:
            y = active(convolution(y, f"{block}._expand_conv", f"{block}._bn0"))
        y = active(convolution(y, f"{block}._depthwise_conv", f"{block}._bn1", stride))
        y = convolution(y, f"{block}._project_conv", f"{block}._bn2")
        x = y + x if x.shape == y.shape else y
    return active(convolution(x, "_conv_head", "_bn1")).mean(axis=(0, 1))


def test_efficientnet_by_hand():
    weights = random_weights()
    model = efficientnet_lite0(size=33)
    set_torch_weights(model, weights)
    picture = RNG.uniform(-1, 1, (33, 33, 3))
    expected = features_by_hand(weights, picture)
    assert 0.1 < expected.std() and np.mean((0.01 < expected) & (expected < 5.99)) > 0.5
    found = model(picture[None].astype(np.float32))
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    with pytest.raises(ValueError, match="must hold '_conv_head' and '_bn1'"):
        set_torch_weights(model, {k: v for k, v in weights.items() if k != "_bn1.bias"})
    with pytest.raises(ValueError, match=r"no place for some of `weights`. Received: \['x'\]"):
        set_torch_weights(model, {**weights, "x": np.zeros(1)})


@pytest.fixture(scope="module")
def published():
    try:
        return ImageEncoder.from_preset()
    except OSError as error:
        pytest.skip(f"no package index: {error}")


def test_the_published_network_is_that_of_pytorch(published):
    # What the package efficientnet-lite-pytorch 0.1.0 makes of this picture under PyTorch 2.13.
    y, x = np.mgrid[:224, :224]
    picture = np.stack([x, y, x * y % 256], axis=-1)
    found = published.backbone(((picture - 127) / 128).astype(np.float32)[None])[0].numpy()
    np.testing.assert_allclose(found[:4], [0.0911150, 0, 1.0861551, 0], atol=1e-5)
    assert found.argmax() == 1062 and found.max() == pytest.approx(4.905204, abs=1e-5)
    assert found.sum() == pytest.approx(220.07579, abs=1e-3)


def test_the_published_network_knows_what_is_shown(published):
    photo = pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    weights = image_weights.published_arrays(image_weights.EFFICIENTNET)
    features = published.backbone(published.picture(tf.constant(photo.read_bytes()))[None])
    scores = features.numpy()[0] @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert np.argmax(scores) == 652  # ImageNet's "military uniform".
    assert published.width == 1280
    assert len(image_weights.identity("efficientnet-lite0")["sha256"]) == 64


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    import keras_hub

    folder = tmp_path_factory.mktemp("vit")
    backbone = keras_hub.models.ViTBackbone((16, 16, 3), 8, 2, 2, 8, 12)
    backbone.save_to_preset(str(folder))
    return folder, backbone


def test_a_vit_of_a_folder(vit, tmp_path, monkeypatch):
    folder, backbone = vit
    image = encoded(PIXELS)
    encoder = ImageEncoder.from_preset(folder)
    tokens = backbone((PIXELS / 127.5 - 1).astype(np.float32)[None])
    mean = tokens.numpy()[0].mean(axis=0)
    vector = encoder.encode([image])
    np.testing.assert_allclose(vector[0], mean / np.linalg.norm(mean), atol=1e-5)
    assert encoder.width == 8
    encoder.train_last(1)
    assert {v.path.split("/")[-2] for v in encoder.trainable_variables} == {"ln"}
    encoder.train_last(2)
    first, last = encoder.backbone.get_layer("vit_encoder").encoder_layers
    assert not first.trainable_variables
    assert len(encoder.trainable_variables) == len(last.weights) + 2
    encoder.save(tmp_path / "vit.keras")
    # Another process knows nothing of keras-hub yet.
    known = keras.saving.get_custom_objects()
    for name in [name for name in known if name.startswith("keras_hub>")]:
        monkeypatch.delitem(known, name)
    loaded = ImageEncoder.from_preset(tmp_path / "vit.keras")
    np.testing.assert_array_equal(loaded.encode([image]), vector)
    assert len(loaded.trainable_variables) == len(encoder.trainable_variables)


def test_colors_are_those_of_the_folders_image_converter(vit):
    import keras_hub

    folder, _ = vit
    kwargs = {"scale": [0.1, 0.2, 0.4], "offset": [-1, 0, 1]}
    converter = keras_hub.layers.ViTImageConverter(image_size=(16, 16), **kwargs)
    converter.save_to_preset(str(folder))
    encoder = ImageEncoder.from_preset(folder)
    found = encoder.picture(tf.constant(encoded(PIXELS)))
    expected = PIXELS * [0.1, 0.2, 0.4] + [-1, 0, 1]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert ImageEncoder.from_preset(folder, mean=0, std=255).std == (255, 255, 255)
    (folder / image_weights._CONVERTER_FILE).unlink()


def test_the_pictures_side_of_a_clip(tmp_path):
    import keras_hub

    vision = keras_hub.models.CLIPVisionEncoder(8, 12, 2, 2, 16, image_shape=(16, 16, 3))
    text = keras_hub.models.CLIPTextEncoder(9, 8, 8, 1, 2, 16, max_sequence_length=6)
    clip = keras_hub.models.CLIPBackbone(vision, text, projection_dim=5)
    clip.save_to_preset(str(tmp_path / "clip"))
    encoder = ImageEncoder.from_preset(tmp_path / "clip")
    expected = clip.get_vision_embeddings((PIXELS / 127.5 - 1).astype(np.float32)[None])
    image = tf.constant([encoded(PIXELS)])
    found = encoder(image).numpy()
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)
    again = ImageEncoder.from_config(encoder.get_config())
    again.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(again(image), found)
    encoder.train_last(1)
    assert len(encoder.trainable_variables) == 1  # The projection.
