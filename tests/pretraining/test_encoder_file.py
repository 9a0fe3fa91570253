import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras.pretraining import image_weights, text_encoder
from tests.pretraining import tiny_bert


def test_an_encoder_stays_itself_however_often_it_is_saved(tmp_path):
    tiny_bert.write(tmp_path / "bert")
    file = tmp_path / "encoder.keras"

    def identity(encoder, identity=text_encoder.identity):
        encoder.save(file)
        return identity(file)

    encoder = ck.pretraining.TextEncoder.from_preset(tmp_path / "bert", max_tokens=9)
    found = identity(encoder)
    assert found["encoder"] == "encoder.keras" and len(found["sha256"]) == 64
    # Another object, whose names are counted up, and one that was loaded.
    same = ck.pretraining.TextEncoder.from_preset(tmp_path / "bert", max_tokens=9)
    assert identity(same) == identity(ck.pretraining.TextEncoder.from_preset(file)) == found
    longer = ck.pretraining.TextEncoder.from_preset(tmp_path / "bert", max_tokens=10)
    assert identity(longer) != found
    weights = encoder.get_weights()
    encoder.set_weights([*weights[:-1], weights[-1] + np.float32(1e-3)])
    assert identity(encoder) != found
    picture_encoder = ck.pretraining.ImageEncoder.small(width=4, size=8)
    found = identity(picture_encoder, image_weights.identity)
    loaded = ck.pretraining.ImageEncoder.from_preset(file)
    assert identity(loaded, image_weights.identity) == found
    other = ck.pretraining.ImageEncoder(loaded.backbone, framing="crop")
    assert identity(other, image_weights.identity) != found


def test_what_is_no_file_of_keras(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"x.keras holds no encoder"):
        text_encoder.identity(tmp_path / "x.keras")
    with pytest.raises(ValueError, match=r"x.keras holds no encoder"):
        ck.pretraining.encoder_width(tmp_path / "x.keras")
