import keras
import numpy as np
import pytest
from scipy import special

from ctr_keras.losses import info_nce, info_nce_with_bank, triplet_loss
from tests.losses.test_info_nce import pairs

RNG = np.random.default_rng(5)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_bank_by_hand():
    q, k = pairs()
    bank = unit(RNG.normal(size=(9, 5))).astype("float32")
    in_use, ids = np.arange(9) < 7, np.array([1, 2, 3, 1, 4, 5])
    bank_ids = np.array([9, 1, 4, 8, 8, 2, 9, 5, 1])
    losses = []
    for i in range(6):
        batch = [unit(q[i]) @ unit(k[j]) for j in range(6) if i == j or ids[i] != ids[j]]
        more = [unit(q[i]) @ bank[n] for n in range(7) if bank_ids[n] != ids[i]]
        own = unit(q[i]) @ unit(k[i])
        losses.append(special.logsumexp(np.array(batch + more) / 0.2) - own / 0.2)
    found = info_nce_with_bank(q, k, bank, 0.2, bank_mask=in_use, key_ids=ids, bank_ids=bank_ids)
    assert float(found) == pytest.approx(np.mean(losses), abs=1e-5)


def test_an_empty_bank_is_none():
    q, k = pairs()
    bank = np.zeros((4, 5), "float32")
    found = info_nce_with_bank(q, k, bank, bank_mask=np.zeros(4, bool))
    assert float(found) == pytest.approx(float(info_nce(q, k)), abs=1e-5)


def test_no_gradient_into_the_bank():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("by TensorFlow's tape")
    import tensorflow as tf

    q, k = (tf.Variable(x) for x in pairs())
    bank, temperature = tf.Variable(np.eye(5, dtype="float32")), tf.Variable(0.2)
    with tf.GradientTape() as tape:
        loss = info_nce_with_bank(q, k, bank, temperature)
    of_q, of_bank, of_temperature = tape.gradient(loss, [q, bank, temperature])
    assert of_bank is None and np.abs(of_q).max() > 0
    step = 1e-2
    up, down = (info_nce_with_bank(q, k, bank, 0.2 + s) for s in (step, -step))
    assert float(of_temperature) == pytest.approx(float(up - down) / (2 * step), rel=1e-2)


def test_triplet_by_hand():
    q, p, n = RNG.normal(size=(3, 8, 5)).astype("float32")
    mask = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool)
    distance = [1 - (unit(q) * unit(x)).sum(axis=1) for x in (p, n)]
    losses = np.maximum(0, 0.3 + distance[0] - distance[1])
    assert 0 < (losses > 0).sum() < 8
    assert float(triplet_loss(q, p, n, 0.3)) == pytest.approx(losses.mean(), abs=1e-6)
    assert float(triplet_loss(q, p, n, 0.3, mask)) == pytest.approx(losses[mask].mean(), abs=1e-6)
    assert float(triplet_loss(q, p, n, 0.3, np.zeros(8, bool))) == 0


def test_bad_arguments():
    q, k = pairs()
    with pytest.raises(ValueError, match="`margin=0`"):
        triplet_loss(q, k, k, margin=0)
    with pytest.raises(ValueError, match=r"\(6, 5\), \(6, 5\), \(6, 4\)"):
        triplet_loss(q, k, k[:, :4])
    with pytest.raises(ValueError, match=r"\(6, 5\), \(6, 5\), \(1, 5\)"):
        triplet_loss(q, k, k[:1])
    with pytest.raises(ValueError, match=r"`mask` must have one value a row.*\(6, 1\)"):
        triplet_loss(q, k, k, mask=np.ones((6, 1), bool))
    with pytest.raises(ValueError, match="go together"):
        info_nce_with_bank(q, k, k, key_ids=np.arange(6))
    with pytest.raises(ValueError, match="`temperature=0`"):
        info_nce_with_bank(q, k, k, temperature=0)
