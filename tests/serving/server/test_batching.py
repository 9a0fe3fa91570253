import concurrent.futures
import threading
import time

import numpy as np
import pytest

from ctr_keras.serving.deadline import Deadline
from ctr_keras.serving.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from ctr_keras.serving.loaded_model import LoadedModel
from ctr_keras.serving.server import BatchingConfig, read_batching_file
from ctr_keras.serving.server.batching import Batcher
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.servable import Servable
from tests.serving.server import saved

NEVER = Deadline()


class Recorder:
    """Doubles `x` and remembers the batches; may be held back."""

    def __init__(self):
        self.batches = []
        self.may_run = threading.Event()
        self.may_run.set()

    def __call__(self, inputs):
        self.batches.append(inputs["x"].shape)
        self.may_run.wait(10)
        if (inputs["x"] < 0).any():
            raise InvalidArgumentError("a negative value")
        return {"y": 2 * inputs["x"]}


def in_threads(batcher, values, deadline=NEVER):
    """Run a request for each value at the same time; answers or errors, in order."""
    answers = [None] * len(values)

    def ask(number, value):
        try:
            answers[number] = batcher.run({"x": value}, deadline)["y"]
        except Exception as error:
            answers[number] = error

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(values)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return answers


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen")


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def batcher(recorder):
    config = BatchingConfig(
        max_batch_size=8, batch_timeout_micros=50_000, max_enqueued_batches=2, num_batch_threads=1
    )
    batcher = Batcher(recorder, config)
    yield batcher
    recorder.may_run.set()
    batcher.close()


def test_requests_share_a_batch_and_get_their_own_rows(batcher, recorder):
    values = [np.full((n, 2), n, np.float32) for n in (1, 2, 3)]
    for value, answer in zip(values, in_threads(batcher, values), strict=True):
        np.testing.assert_array_equal(answer, 2 * value)
    assert recorder.batches == [(6, 2)]


def test_only_equal_shapes_are_merged(batcher, recorder):
    values = [np.ones((1, width), np.float32) * width for width in (2, 3, 2, 3)]
    for value, answer in zip(values, in_threads(batcher, values), strict=True):
        np.testing.assert_array_equal(answer, 2 * value)
    assert sorted(recorder.batches) == [(2, 2), (2, 3)]


@pytest.mark.parametrize("dtype", [np.int64, object])
def test_sequences_of_any_length_share_a_padded_batch(dtype):
    batches = []

    def run(inputs):
        batches.append(inputs)
        return {"length": (inputs["ids"] != padding).sum(axis=1)}

    padding, word = (b"", b"word") if dtype is object else (-1, 7)
    batcher = Batcher(run, BatchingConfig(6, batch_timeout_micros=60_000_000), {"ids": padding})
    lengths, answers = [3, 0, 5], [None] * 3

    def ask(n):
        inputs = {"age": np.ones((n + 1, 2)), "ids": np.full((n + 1, lengths[n]), word, dtype)}
        answers[n] = batcher.run(inputs, NEVER)["length"].tolist()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    batcher.close()
    assert answers == [[3], [0, 0], [5, 5, 5]]
    assert [batch["ids"].shape for batch in batches] == [(6, 5)]


def test_a_long_sequence_does_not_make_others_as_long():
    shapes = []

    def run(inputs):
        shapes.append(inputs["ids"].shape)
        return {"y": inputs["ids"][:, :1]}

    batcher = Batcher(run, BatchingConfig(8, 20_000), {"ids": 0})
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        for length in (3, 5000, 6000):
            threads.submit(batcher.run, {"ids": np.ones((1, length), np.int64)}, NEVER)
    batcher.close()
    assert sum(rows for rows, length in shapes if length == 3) == 1
    assert sum(rows for rows, length in shapes if length >= 5000) == 2


def test_a_full_batch_does_not_wait(recorder):
    batcher = Batcher(recorder, BatchingConfig(8, batch_timeout_micros=60_000_000))
    answers = in_threads(batcher, [np.ones((4, 1), np.float32)] * 2)
    assert [answer.shape for answer in answers] == [(4, 1)] * 2
    batcher.close()


def test_a_request_beyond_the_batch_size_runs_alone(batcher, recorder):
    answer = batcher.run({"x": np.ones((100, 1), np.float32)}, NEVER)["y"]
    assert answer.shape == (100, 1) and recorder.batches == [(100, 1)]


def test_no_rows(batcher):
    assert batcher.run({"x": np.zeros((0, 2), np.float32)}, NEVER)["y"].shape == (0, 2)


def test_a_bad_request_does_not_fail_the_others(batcher, recorder):
    good, bad, fine = in_threads(batcher, [np.full((1, 1), v, np.float32) for v in (1, -1, 2)])
    assert (good.item(), fine.item()) == (2, 4)
    assert isinstance(bad, InvalidArgumentError)


def test_full_queue_refuses_and_recovers(batcher, recorder):
    recorder.may_run.clear()
    blocker = threading.Thread(target=batcher.run, args=({"x": np.ones((8, 1))}, NEVER))
    blocker.start()
    wait_until(lambda: recorder.batches)
    waiting = threading.Thread(target=in_threads, args=(batcher, [np.ones((8, 1))] * 2))
    waiting.start()
    wait_until(lambda: sum(group.rows for group in batcher._groups.values()) == 16)
    with pytest.raises(ResourceExhaustedError, match="16 rows wait"):
        batcher.run({"x": np.ones((1, 1))}, NEVER)
    recorder.may_run.set()
    blocker.join(10)
    waiting.join(10)
    assert batcher.run({"x": np.ones((1, 1))}, NEVER)["y"].item() == 2


def test_what_is_late_is_not_run(batcher, recorder):
    recorder.may_run.clear()
    blocker = threading.Thread(target=batcher.run, args=({"x": np.ones((8, 1))}, NEVER))
    blocker.start()
    wait_until(lambda: recorder.batches)
    with pytest.raises(DeadlineExceededError):
        batcher.run({"x": np.ones((3, 1))}, Deadline.after(0.02))
    recorder.may_run.set()
    blocker.join(10)
    assert batcher.run({"x": np.ones((2, 1))}, NEVER)["y"].shape == (2, 1)
    assert (3, 1) not in recorder.batches


def test_batches_of_a_model_are_right(versions):
    model = LoadedModel(versions[1])
    servable = Servable(model, Gate(2, 8), BatchingConfig(64, 20_000, num_batch_threads=2))
    requests = [saved.make_inputs(1 + n % 4, seed=n, width=1 + n % 3) for n in range(40)]
    answers = [None] * len(requests)

    def ask(number):
        answers[number] = servable.run("serving_default", requests[number])["probability"]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    servable.close()
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_allclose(answer, saved.expected(request), atol=1e-6)


def test_gate_bounds_what_runs_and_what_waits():
    gate = Gate(running=1, waiting=1)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with gate.admitted(), gate.turn(NEVER):
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    with pytest.raises(DeadlineExceededError), gate.turn(Deadline.after(0.01)):
        pass
    waiter = threading.Thread(target=hold)
    waiter.start()
    wait_until(lambda: gate._places._value == 0)
    with pytest.raises(ResourceExhaustedError, match="1 requests run and 1 wait"):
        gate.admitted().__enter__()
    leave.set()
    holder.join(10)
    waiter.join(10)
    with gate.admitted(), gate.turn(NEVER):
        pass


def test_batching_file(tmp_path):
    path = tmp_path / "batching.txt"
    path.write_text(
        "max_batch_size { value: 64 }\nbatch_timeout_micros { value: 0 }\n"
        'num_batch_threads { value: 3 }\nthread_pool_name { value: "x" }\n'
    )
    assert read_batching_file(path) == BatchingConfig(64, 0, num_batch_threads=3)
    path.write_text("pad_variable_length_inputs: true")
    assert read_batching_file(path) == BatchingConfig(pad_variable_length_inputs=True)
    path.write_text("allowed_batch_sizes: [8, 16]")
    with pytest.raises(ValueError, match=r"`allowed_batch_sizes=\[8, 16\]`"):
        read_batching_file(path)
    path.write_text("max_batch: 3")
    with pytest.raises(ValueError, match="batching.txt.*max_batch"):
        read_batching_file(path)
    path.write_text("max_batch_size { value: 0 }")
    with pytest.raises(ValueError, match="`max_batch_size=0`"):
        read_batching_file(path)


def test_groups_that_are_always_full_keep_no_other_waiting(recorder):
    """Two shapes of full batches, and one that never fills."""
    config = BatchingConfig(max_batch_size=2, batch_timeout_micros=1000, num_batch_threads=1)
    batcher = Batcher(recorder, config)
    recorder.may_run.clear()
    shapes = [(2, 3), (2, 3), (2, 4), (1, 5), (2, 3)]
    threads = []
    for number, shape in enumerate(shapes):
        thread = threading.Thread(target=batcher.run, args=({"x": np.ones(shape)}, NEVER))
        thread.start()
        threads.append(thread)
        waiting = number if number else 1
        wait_until(
            lambda n=waiting: (
                len(recorder.batches) + sum(len(group.tasks) for group in batcher._groups.values())
                >= n
            )
        )
        time.sleep(0.01)
    recorder.may_run.set()
    for thread in threads:
        thread.join(10)
    batcher.close()
    assert recorder.batches == shapes
