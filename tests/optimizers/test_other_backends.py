import keras
import pytest

from ctr_keras.optimizers import LazyAdam, RowwiseAdagrad


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="works on TensorFlow")
@pytest.mark.parametrize("cls", [LazyAdam, RowwiseAdagrad])
def test_says_that_it_needs_tensorflow(cls):
    with pytest.raises(ValueError, match="TensorFlow backend.*Received: `backend=jax`"):
        cls()
