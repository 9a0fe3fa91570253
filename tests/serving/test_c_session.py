import threading
import weakref

import numpy as np
import pytest
import tensorflow as tf

from ctr_keras.serving.c_session import CSession

_DTYPES = ("float16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool", "bfloat16")


class _Kinds(tf.Module):
    """Gives back what it gets."""

    def __init__(self):
        super().__init__()
        self.zero = tf.Variable(0.0)

    @tf.function
    def same(self, x):
        return {"x": tf.identity(x), "again": x, "rank": tf.rank(x)}

    @tf.function
    def slow(self, steps):
        total = tf.identity(self.zero)
        for step in tf.range(steps):
            total += tf.sin(tf.cast(step, tf.float32))
        return {"total": total}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    module = _Kinds()
    signatures = {
        dtype: module.same.get_concrete_function(tf.TensorSpec(None, tf.as_dtype(dtype), "x"))
        for dtype in (*_DTYPES, "string")
    }
    signatures["slow"] = module.slow.get_concrete_function(tf.TensorSpec((), tf.int32, "steps"))
    tf.saved_model.save(module, str(folder), signatures)
    return folder


@pytest.fixture(scope="module")
def session(folder):
    return CSession(folder)


def run(session, signature, array, seconds=None):
    proto = session.meta_graph().signature_def[signature]
    (fed,) = proto.inputs.values()
    names = sorted(proto.outputs)
    found = session.run([proto.outputs[n].name for n in names], {fed.name: array}, seconds)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_numbers_come_back(session, dtype, shape):
    array = np.random.default_rng(1).integers(0, 2, shape)
    array = np.asarray(array).astype(tf.as_dtype(dtype).as_numpy_dtype)
    found = run(session, dtype, array)
    for name in ("x", "again"):
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].shape == shape
    assert found["rank"] == len(shape)


def test_an_array_that_is_no_block_of_memory(session):
    array = np.arange(12, dtype=np.int64).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(run(session, "int64", array)["x"], array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(b"alone", object),
        np.array([], object),
        np.array([b"", b"short", b"longer than what a string holds itself", b"\0\xff\0"], object),
        np.array([["Zoë", "日本"], [b"", "x" * 100_000]], object),
        np.array(["one", "three"]),
        np.array([b"one", b"three"]),
    ],
)
def test_strings_come_back(session, array):
    found = run(session, "string", array)["x"]
    expected = [x.encode() if isinstance(x, str) else bytes(x) for x in array.reshape(-1)]
    assert found.reshape(-1).tolist() == expected
    assert found.shape == array.shape and found.dtype == object


def test_what_cannot_be_fed_leaves_nothing_behind(session):
    with pytest.raises(TypeError):
        run(session, "string", np.array([b"text", 3], object))
    with pytest.raises(ValueError, match="no such tensor. Received: `name='nothing:0'`"):
        session.run(["nothing:0"], {})
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(session, "float32", np.arange(3))


def test_it_ends_at_its_deadline(session):
    with pytest.raises(tf.errors.DeadlineExceededError):
        run(session, "slow", np.int32(2_000_000_000), seconds=0.05)
    assert run(session, "slow", np.int32(0), seconds=5.0)["total"] == 0.0


def test_a_run_outlives_the_last_reference_to_its_session(folder):
    session = CSession(folder)
    gone = weakref.ref(session)
    answers = []
    thread = threading.Thread(
        target=lambda session: answers.append(run(session, "slow", np.int32(300_000))),
        args=(session,),
    )
    thread.start()
    del session
    thread.join()
    del thread
    assert len(answers) == 1 and gone() is None


def test_others_go_on_while_it_loads(folder):
    """The interpreter's lock is free for nearly all of the time."""
    turns, done = [0], threading.Event()

    def count():
        while not done.is_set():
            turns[0] += 1
            done.wait(0.0005)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        before = turns[0]
        sessions = [CSession(folder) for _ in range(3)]
        assert turns[0] - before > 10
    finally:
        done.set()
        thread.join()
    assert len(sessions) == 3


def test_what_is_wrong_with_a_folder(folder, tmp_path):
    with pytest.raises(tf.errors.NotFoundError, match="Could not find SavedModel"):
        CSession(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(tf.errors.OpError):
        CSession(tmp_path)
