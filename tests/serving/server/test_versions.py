import os
import shutil
import threading
import time

import numpy as np
import pytest

from ctr_keras.serving.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from ctr_keras.serving.server import ModelConfig, ModelManager, VersionPolicy, read_models_config
from ctr_keras.serving.server.gate import Gate
from ctr_keras.serving.server.model_name import ModelName
from ctr_keras.serving.server.servable import Servable
from ctr_keras.serving.server.served_model import ServedModel
from ctr_keras.serving.status import State
from ctr_keras.serving.versions import all_versions, version_folder
from tests.serving.server import saved

CLICKS = ModelName("clicks")


@pytest.fixture
def manage():
    """Starts managers that look for versions only when they are told to."""
    gate, started = Gate(2, 100), []

    def load(folder, gently):
        return Servable.load(folder, gate, gently=gently)

    def manage(*configs, poll_seconds=0, load=load, load_threads=1):
        manager = ModelManager(configs, load, poll_seconds, load_threads)
        manager.start()
        started.append(manager)
        return manager

    yield manage
    for manager in started:
        manager.stop(1.0)


def answer(manager, name=CLICKS):
    """The version that answers, after its answer was held against NumPy."""
    inputs = saved.make_inputs(2)
    with manager.lease(name) as (version, servable):
        got = servable.run("serving_default", inputs)["probability"]
    np.testing.assert_allclose(got, saved.expected(inputs, {1: 0.5, 2: 0.75}[version]), atol=1e-6)
    return version


def states(manager):
    return {status.version: status.state for status in manager.statuses(CLICKS)}


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (VersionPolicy(latest=1), [9]),
        (VersionPolicy(latest=2), [5, 9]),
        (VersionPolicy(latest=7), [1, 5, 9]),
        (VersionPolicy(specific=(1, 4)), [1]),
        (VersionPolicy(), [1, 5, 9]),
    ],
)
def test_policies(policy, wanted):
    assert policy.wanted([5, 9, 1]) == wanted


def test_a_new_version_takes_over(manage, versions, base):
    manager = manage(ModelConfig("clicks", base))
    assert answer(manager) == 1
    saved.publish(versions[2], base, 2)
    manager.poll()
    assert answer(manager) == 2
    assert states(manager) == {2: State.AVAILABLE, 1: State.END}
    with pytest.raises(NotFoundError, match=r"Specific\(clicks, 1\); available are \[2\]"):
        answer(manager, ModelName("clicks", version=1))
    shutil.rmtree(base / "1")
    manager.poll()
    assert states(manager) == {2: State.AVAILABLE}


def test_versions_are_found_by_watching(manage, versions, base):
    manager = manage(ModelConfig("clicks", base), poll_seconds=0.02)
    saved.publish(versions[2], base, 2)
    wait_for(lambda: answer(manager) == 2)


def test_no_request_fails_while_versions_switch(manage, versions, base):
    manager = manage(ModelConfig("clicks", base))
    stop, answered, failed = threading.Event(), [], []

    def ask():
        while not stop.is_set():
            try:
                answered.append(answer(manager))
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answered) > 20)
    saved.publish(versions[2], base, 2)
    manager.poll()
    seen = len(answered)
    wait_for(lambda: len(answered) > seen + 20)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert failed == []
    assert set(answered) == {1, 2} and answered[-1] == 2


def test_a_version_in_use_is_not_unloaded(manage, versions, base):
    manager = manage(ModelConfig("clicks", base))
    saved.publish(versions[2], base, 2)
    with manager.lease(CLICKS) as (version, servable):
        manager.poll()
        assert answer(manager) == 2
        assert states(manager)[version] is State.UNLOADING
        servable.run("serving_default", saved.make_inputs(1))
    wait_for(lambda: states(manager)[1] is State.END)  # by the manager's thread, untold


def test_models_load_at_the_same_time(manage, versions, tmp_path):
    """Each waits in its loading until all do; one that fails leaves the others."""
    together = threading.Barrier(3)

    def load(folder, gently):
        together.wait(20)
        return Servable.load(folder, Gate(1, 1))

    configs = [ModelConfig(name, tmp_path / name) for name in ("a", "b", "broken")]
    for config in configs:
        saved.publish(versions[1], config.base_path, 1)
    half_written(tmp_path / "broken" / "1")
    manager = manage(*configs, load=load, load_threads=3)
    assert manager.available() == {"a": [1], "b": [1], "broken": []}
    assert answer(manager, ModelName("b")) == 1


def test_what_loads_while_any_model_answers_loads_gently(manage, versions, base, tmp_path):
    loads = []

    def load(folder, gently):
        loads.append((folder.parent.name, gently))
        return Servable.load(folder, Gate(1, 1))

    for name in ("other", "moved"):
        saved.publish(versions[1], tmp_path / name, 1)
    clicks, other = ModelConfig("clicks", base), ModelConfig("other", tmp_path / "other")
    manager = manage(clicks, other, load=load)
    manager.reload([clicks])
    manager.reload([clicks, other])
    manager.reload([ModelConfig("clicks", tmp_path / "moved"), other])
    saved.publish(versions[2], tmp_path / "other", 2)
    manager.poll()
    at_the_start, later = loads[:2], loads[2:]
    assert at_the_start == [("clicks", False), ("other", False)]
    assert later == [("other", True), ("moved", True), ("other", True)]


def test_stop_does_not_wait_for_a_version_that_loads(versions, base):
    loading, loaded = threading.Event(), threading.Event()

    def load(folder, gently):
        if gently:
            loading.set()
            loaded.wait(20)
        return Servable.load(folder, Gate(1, 1))

    manager = ModelManager([ModelConfig("clicks", base)], load, poll_seconds=0.02)
    manager.start()
    saved.publish(versions[2], base, 2)
    assert loading.wait(10)
    assert answer(manager) == 1
    assert not manager.stop(0.1)
    loaded.set()
    assert manager.stop(20)


def test_base_path_that_vanishes_keeps_the_model(manage, base):
    manager = manage(ModelConfig("clicks", base))
    shutil.rmtree(base)
    manager.poll()
    assert answer(manager) == 1


def test_only_numbered_folders_are_versions(manage, versions, base):
    for name in (".2.aside", "training", "2a", "²", str(1 << 63)):
        shutil.copytree(versions[2], base / name)
    assert answer(manage(ModelConfig("clicks", base))) == 1


def test_leading_zeros(manage, versions, base):
    manager = manage(ModelConfig("clicks", base))
    shutil.copytree(versions[2], base / "00000002")
    manager.poll()
    assert answer(manager) == 2
    assert version_folder(base) == base / "00000002"
    shutil.copytree(versions[1], base / "002")
    shutil.copytree(versions[1], base / "001")
    assert all_versions(base) == {1: base / "1", 2: base / "002"}


def half_written(folder):
    (folder / "saved_model.pb").unlink()


def without_variables(folder):
    shutil.rmtree(folder / "variables")


def cut_variables(folder):
    data = next((folder / "variables").glob("*.data*"))
    data.write_bytes(data.read_bytes()[:-100])


def flipped_bit(folder):
    data = next((folder / "variables").glob("*.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def cut_graph(folder):
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:1000])


def failing_warmup(folder):
    saved.add_warmup(folder, {"age": np.zeros(1, np.float32)})


def broken_warmup(folder):
    saved.add_warmup(folder, saved.make_inputs(1))
    path = folder / saved.WARMUP
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    "damage",
    [half_written, without_variables, cut_variables, flipped_bit, cut_graph, failing_warmup,
     broken_warmup],
)  # fmt: skip
def test_a_version_that_cannot_be_loaded_leaves_the_old_one(manage, versions, base, damage):
    manager = manage(ModelConfig("clicks", base))
    damage(saved.publish(versions[2], base, 2))
    manager.poll()
    assert answer(manager) == 1
    failed = manager.statuses(ModelName("clicks", version=2))[0]
    assert (failed.version, failed.state) == (2, State.END)
    assert failed.code != "OK" and failed.message
    manager.poll()
    assert answer(manager) == 1


def test_a_version_is_tried_again_when_its_files_change(manage, versions, base):
    manager = manage(ModelConfig("clicks", base))
    loads = []
    load = manager._load
    manager._load = lambda *how: (loads.append(how), load(*how))[1]
    half_written(saved.publish(versions[2], base, 2))
    manager.poll()
    manager.poll()
    assert loads == [(base / "2", True)]  # it would fail again
    shutil.copy(versions[2] / "saved_model.pb", base / "2")
    manager.poll()
    assert answer(manager) == 2


def test_a_version_is_tried_again_when_a_file_was_replaced_unseen(manage, versions, base):
    """By one of the same size and time of change, as `cp -p` and `rsync` leave it."""
    manager = manage(ModelConfig("clicks", base))
    folder = saved.publish(versions[2], base, 2)
    data = next((folder / "variables").glob("*.data*"))
    whole, before = data.read_bytes(), data.stat()
    data.write_bytes(bytes(len(whole)))
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    manager.poll()
    assert answer(manager) == 1
    data.write_bytes(whole)
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    manager.poll()
    assert answer(manager) == 2


def test_a_version_is_tried_again_each_minute(base):
    times, tried = [], []

    def load(folder):
        tried.append(times[-1])
        raise MemoryError("for the moment")

    model = ServedModel(ModelConfig("clicks", base), load, lambda: None, lambda: times[-1])
    for seconds in (0, 1, 59, 61, 62, 120, 125):
        times.append(seconds)
        model.refresh()
    assert tried == [0, 61, 125]
    model.refresh(again=True)
    assert tried == [0, 61, 125, 125]


def test_a_version_is_tried_again_by_a_reload(manage, base):
    full = [True]

    def load(folder, gently):
        if full:
            raise MemoryError("for the moment")
        return Servable.load(folder, Gate(1, 1))

    config = ModelConfig("clicks", base)
    manager = manage(config, load=load)
    full.clear()
    manager.poll()
    assert manager.available() == {"clicks": []}
    manager.reload([config])
    assert answer(manager) == 1


def test_schema_may_change_between_versions(manage, versions, base):
    manager = manage(ModelConfig("clicks", base))
    saved.publish(versions["changed"], base, 2)
    manager.poll()
    with manager.lease(CLICKS) as (_, servable):
        outputs = servable.run("serving_default", {"age": np.array([0])})
        assert outputs["probability"] == 0.5
        with pytest.raises(InvalidArgumentError, match="no input 'ids'"):
            servable.run("serving_default", saved.make_inputs(1) | {"age": np.array([0])})


def test_labels(manage, versions, base):
    saved.publish(versions[2], base, 2)
    config = ModelConfig("clicks", base, VersionPolicy(), {"stable": 1, "new": 2, "next": 3})
    manager = manage(config)
    assert answer(manager, ModelName("clicks", label="stable")) == 1
    assert answer(manager, ModelName("clicks", label="new")) == 2
    assert answer(manager) == 2
    with pytest.raises(NotFoundError, match="'canary'"):
        answer(manager, ModelName("clicks", label="canary"))
    with pytest.raises(NotFoundError, match=r"Specific\(clicks, 3\)"):
        answer(manager, ModelName("clicks", label="next"))
    with pytest.raises(FailedPreconditionError, match="Label 'next'.*version 3"):
        manager.reload([config])


def test_a_label_moves_when_its_version_is_available(manage, versions, base):
    loading, loaded = threading.Event(), threading.Event()

    def load(folder, gently):
        if gently:
            loading.set()
            assert loaded.wait(20)
        return Servable.load(folder, Gate(1, 1))

    stable = ModelName("clicks", label="stable")
    manager = manage(ModelConfig("clicks", base, labels={"stable": 1}), load=load)
    saved.publish(versions[2], base, 2)
    moved = ModelConfig("clicks", base, labels={"stable": 2})
    reloading = threading.Thread(target=manager.reload, args=([moved],))
    reloading.start()
    assert loading.wait(10)
    assert answer(manager, stable) == 1
    loaded.set()
    reloading.join(20)
    assert answer(manager, stable) == 2
    with pytest.raises(FailedPreconditionError, match="Label 'stable'.*version 3"):
        manager.reload([ModelConfig("clicks", base, labels={"stable": 3})])
    assert answer(manager, stable) == 2
    manager.reload([ModelConfig("clicks", base)])
    with pytest.raises(NotFoundError, match="'stable'"):
        answer(manager, stable)


def test_reload_adds_removes_and_keeps(manage, versions, base, tmp_path):
    manager = manage(ModelConfig("clicks", base))
    with manager.lease(CLICKS) as (_, before):
        pass
    saved.publish(versions[2], tmp_path / "other", 2)
    manager.reload([ModelConfig("clicks", base), ModelConfig("other", tmp_path / "other")])
    with manager.lease(CLICKS) as (_, after):
        assert after is before  # it was not loaded again
    assert answer(manager, ModelName("other")) == 2
    manager.reload([ModelConfig("other", tmp_path / "other")])
    with pytest.raises(NotFoundError, match=r"Latest\(clicks\)"):
        answer(manager)
    with pytest.raises(ValueError, match="same name.*'other'"):
        manager.reload([ModelConfig("other", base), ModelConfig("other", tmp_path / "other")])
    assert answer(manager, ModelName("other")) == 2


def test_reload_to_another_base_path(manage, versions, base, tmp_path):
    manager = manage(ModelConfig("clicks", base))
    saved.publish(versions[2], tmp_path / "other", 2)
    manager.reload([ModelConfig("clicks", tmp_path / "other")])
    assert answer(manager) == 2
    with pytest.raises(FailedPreconditionError, match="'clicks' has no version.*typo"):
        manager.reload([ModelConfig("clicks", tmp_path / "typo")])
    assert answer(manager) == 2
    shutil.rmtree(tmp_path / "other" / "2")
    saved.publish(versions[1], tmp_path / "other", 3)
    manager.poll()  # it is still the other path that is watched
    assert manager.available() == {"clicks": [3]}


def test_reload_names_what_could_not_be_loaded(manage, base, tmp_path):
    manager = manage(ModelConfig("clicks", base))
    with pytest.raises(FailedPreconditionError, match="'ghost' has no version.*nowhere"):
        manager.reload([ModelConfig("clicks", base), ModelConfig("ghost", tmp_path / "nowhere")])
    assert answer(manager) == 1


def test_models_config(tmp_path):
    path = tmp_path / "models.config"
    path.write_text(
        """
        model_config_list {
          config { name: "a" base_path: "/models/a" model_platform: "tensorflow" }
          config {
            name: "b" base_path: "/models/b"
            model_version_policy { specific { versions: 3 versions: 1 } }
            version_labels { key: "stable" value: 3 }
          }
          config { name: "c" base_path: "/models/c" model_version_policy { all {} } }
          config { name: "d" base_path: "/models/d"
                   model_version_policy { latest { num_versions: 2 } } }
        }
        """
    )
    a, b, c, d = read_models_config(path, "/models")
    assert (a.name, str(a.base_path), a.versions) == ("a", "/models/a", VersionPolicy(latest=1))
    assert (b.versions, b.labels) == (VersionPolicy(specific=(3, 1)), {"stable": 3})
    assert (c.versions, d.versions) == (VersionPolicy(), VersionPolicy(latest=2))


def test_only_paths_below_models_are_moved(tmp_path):
    paths = ["/models/a", "/models", "/models2/c", "/data/models/d"]
    configs = "".join(
        f'config {{ name: "{n}" base_path: "{path}" }}' for n, path in enumerate(paths)
    )
    (tmp_path / "models.config").write_text(f"model_config_list {{ {configs} }}")
    found = read_models_config(tmp_path / "models.config", "/here")
    assert [str(m.base_path) for m in found] == ["/here/a", "/here", *paths[2:]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_config_lis {}", "models.config.*model_config_lis"),
        ("", "Expected a `model_config_list`"),
        ("custom_model_config {}", "custom_model_config"),
        ('model_config_list { config { name: "a" base_path: "models/a" } }', "absolute path"),
        ('model_config_list { config { name: "a/b" base_path: "/m" } }', "`name='a/b'`"),
        (
            'model_config_list { config { name: "a" base_path: "/m" model_platform: "jax" } }',
            "`model_platform='jax'`",
        ),
        ('model_config_list { config { name: "a" base_path: "/m" } config { name: "a" '
         'base_path: "/n" } }', "same name"),
    ],
)  # fmt: skip
def test_wrong_models_config(tmp_path, text, message):
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_models_config(path)


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")
