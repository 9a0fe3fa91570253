import dataclasses
import shutil
import warnings

import keras
import numpy as np
import pytest

import ctr_keras as ck
from ctr_keras import training
from ctr_keras.training.checkpoint import item_vectors_of
from tests.models.conformance import run_model_conformance

WIDTH = 6
RNG = np.random.default_rng(0)


def items_schema():
    return ck.Schema(
        [
            ck.Feature("user_id", "user", vocabulary=ck.Vocabulary.of_size(30)),
            ck.Feature("item_id", "item", vocabulary=ck.Vocabulary.of_size(20)),
            ck.Feature("history_item_id", "history", length=5, shares="item_id"),
            ck.Feature("group", "group"),
            ck.Feature("label", "label", kind="number"),
        ]
    )


def extractor(schema, **kwargs):
    return ck.models.KnowledgeExtractor(schema, WIDTH, units=(6, 3), attention_units=(4,), **kwargs)


DIN = {"embedding_dim": 4, "units": (6,), "attention_units": (4,)}
MODELS = {
    "VectorFusion": lambda s: ck.models.VectorFusion.on(ck.models.DIN, s, WIDTH, **DIN),
    "SimTier": lambda s: ck.models.SimTier.on(ck.models.DIN, s, WIDTH, num_tiers=4, **DIN),
    "SimScore": lambda s: ck.models.SimScore.on(ck.models.DIN, s, WIDTH, **DIN),
    "KnowledgeExtractor": extractor,
    "MAKE": lambda s: ck.models.MAKE.on(ck.models.DeepFM, s, extractor(s), embedding_dim=4),
    "SimTierMAKE": lambda s: ck.models.SimTierMAKE.on(
        ck.models.FM, s, extractor(s, projection=2), joint=True, num_tiers=4, embedding_dim=4
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows whose clicks depend on the similarity to past items; item 19 has no vector."""
    folder = tmp_path_factory.mktemp("items")
    items_schema().save(folder)
    vectors = RNG.normal(size=(20, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    item, past = RNG.integers(2, 20, 600), RNG.integers(2, 20, (600, 5))
    past[np.arange(5) >= RNG.integers(0, 6, 600)[:, None]] = 0
    similar = (vectors[past] @ vectors[item][:, :, None])[..., 0] * (past > 0)
    rows = {"user_id": RNG.integers(2, 30, 600), "item_id": item, "history_item_id": past}
    rows |= {"group": rows["user_id"], "label": similar.sum(axis=1) > 0.3}
    ck.data.write(folder / "train", items_schema(), rows, block_rows=64)
    table = ck.data.VectorTable.create(folder / "item_vectors", {"encoder": "by hand"}, WIDTH)
    table.extended(np.arange(2, 19), vectors[2:19].astype("float32"))
    return folder


@pytest.fixture(scope="module")
def batch(folder):
    return next(iter(ck.data.read(folder / "train", items_schema().with_item_vectors(WIDTH), 600)))


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, folder, batch, tmp_path):
    rows = {name: value.numpy() for name, value in batch[0].items()}
    rows |= {"label": batch[1].numpy()}
    names = MODELS[name](items_schema()).schema.names
    rows = {column: rows[column] for column in names}
    run_model_conformance(
        MODELS[name], items_schema(), folder / "train", tmp_path, rows, continues=name == "MAKE"
    )


def test_tiers_enter_the_base(batch):
    x, _ = batch
    model = MODELS["SimTier"](items_schema())
    target, past = x["item_id_vector"].numpy(), x["history_item_id_vector"].numpy()
    scores = np.clip(np.einsum("bd,bld->bl", target, past), -1, 1)
    kept = (x["history_item_id"].numpy() > 0) & (scores != 0)
    tiers = np.stack([np.histogram(s[k], 4, (-1, 1))[0] for s, k in zip(scores, kept, strict=True)])
    names = [f.name for f in items_schema().inputs]
    features = {name: x[name] for name in names}
    expected = model.base.predict({**features, "sim_tiers": np.log1p(tiers)}, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_tiers_and_knowledge_join_the_input_of_the_mlp(batch):
    x, _ = batch
    schema, options = items_schema(), {"embedding_dim": 4, "units": (6,), "activation": "relu"}
    model = ck.models.SimTierMAKE.on(
        ck.models.DNN, schema, extractor(schema), num_tiers=4, **options
    )
    made = {"sim_tiers": RNG.random((600, 4)), "knowledge": RNG.normal(size=(600, WIDTH + 6 + 3))}
    base, features = model.base, {f.name: x[f.name] for f in schema.inputs}
    ids = {name: x[name].numpy() for name in features}
    rows = {name: base.get_layer("embedding").rows(name) for name in ids}
    past = rows["history_item_id"][ids["history_item_id"]].sum(axis=1)
    past /= np.maximum((ids["history_item_id"] > 0).sum(axis=1, keepdims=True), 1)
    parts = [rows["user_id"][ids["user_id"]], rows["item_id"][ids["item_id"]], past]
    parts += [made["knowledge"], made["sim_tiers"]]
    hidden, out = base.get_layer("mlp").weights, base.get_layer("logit").weights
    joint = np.maximum(np.concatenate(parts, axis=1) @ hidden[0].numpy() + hidden[1].numpy(), 0)
    logit = joint @ out[0].numpy() + out[1].numpy()
    expected = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(base.predict({**features, **made}, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize(
    "base", ["DIN", "DIEN", "DBPMaN", "DNN", "DeepFM", "WideDeep", "DMR", "DeepMCP", "FM"]
)
def test_every_base_takes_tiers(base, projected):
    options = {"embedding_dim": 4} | ({} if base == "FM" else {"units": (6,)})
    model = ck.models.SimTier.on(
        getattr(ck.models, base), items_schema(), WIDTH, 7, projected=projected, **options
    )
    names = [weight.path.split("/")[-2] for weight in model.base.weights]
    is_projected = projected or base == "FM"
    assert ("embedding_sim_tiers" in names) == is_projected
    if base != "FM":
        plain = getattr(ck.models, base)(items_schema(), **options)
        wide, narrow = (m.get_layer("mlp").weights[0].shape[0] for m in (model.base, plain))
        assert wide - narrow == (4 if projected else 7)


@pytest.mark.parametrize("base", ["SharedBottom", "MMoE", "PLE", "ScenarioDNN", "MAML"])
def test_bases_of_scenarios_and_tasks_take_tiers(base):
    schema = ck.Schema(
        (*items_schema(), ck.Feature("place", "scenario", vocabulary=ck.Vocabulary.of_size(4)))
    )
    kind = getattr(ck.models, base)
    options = {"tower_units" if base == "ScenarioDNN" else "units": (6,)}
    model = ck.models.SimTier.on(kind, schema, WIDTH, 7, embedding_dim=4, **options).base
    names = [weight.path.split("/")[-2] for weight in model.weights]
    assert ("embedding_sim_tiers" in names) == (base == "MAML")  # Which adapts a projection.
    x = {name: np.full((2, *tensor.shape[1:]), 2) for name, tensor in model.input.items()}
    x["sim_tiers"] = np.array([[0.0] * 7, [1.0] * 7], "float32")
    one, other = np.asarray(model(x, training=False))
    assert one != other


def test_scores_enter_the_base(batch):
    x, _ = batch
    model = MODELS["SimScore"](items_schema())
    target, past = x["item_id_vector"].numpy(), x["history_item_id_vector"].numpy()
    scores = np.einsum("bd,bld->bl", target, past)[..., None]
    features = {f.name: x[f.name] for f in items_schema().inputs}
    features |= {"history_score": scores, "item_score": np.ones((600, 1))}
    expected = model.base.predict(features, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


ON_OTHER_BASES = {
    "SimTier on DeepMCP": lambda s: ck.models.SimTier.on(
        ck.models.DeepMCP, s, WIDTH, num_tiers=4, embedding_dim=4, units=(6,)
    ),
    "SimScore on DeepMCP": lambda s: ck.models.SimScore.on(
        ck.models.DeepMCP, s, WIDTH, embedding_dim=4, units=(6,)
    ),
    "SimScore on DMR": lambda s: ck.models.SimScore.on(
        ck.models.DMR, s, WIDTH, embedding_dim=4, units=(6,)
    ),
    "SimScore on DIEN": lambda s: ck.models.SimScore.on(
        ck.models.DIEN, s, WIDTH, embedding_dim=4, units=(6,)
    ),
}
OF_ITEM = {"item_id", "item_id_vector"}


def tensors_of(model, x):
    graph = keras.Model(model.input, model.tensors)
    return {name: value.numpy() for name, value in graph({n: x[n] for n in model.input}).items()}


@pytest.mark.parametrize("name", [*MODELS, *ON_OTHER_BASES])
def test_what_is_matched_is_of_one_side_alone(name, batch):
    """With the other side in it a match could be read off, and uim_loss fell below chance."""
    model = {**MODELS, **ON_OTHER_BASES}[name](items_schema())
    x, y = batch
    found = tensors_of(model, x)
    for key in model.input:
        other = {**x, key: x[key][::-1]}
        changed = {
            n for n, v in tensors_of(model, other).items() if not np.array_equal(v, found[n])
        }
        of_one = {"item", "target", "item_side"} if key not in OF_ITEM else {
            "user", "history", "history_mask", "user_side"
        }  # fmt: skip
        assert not changed & of_one, key
    if name in ON_OTHER_BASES:
        model.compile(metrics=[], run_eagerly=True)
        logs = model.train_on_batch(x, y, return_dict=True)
        assert np.isfinite(list(logs.values())).all()


def test_a_model_saved_before_features_were_crossed_is_as_it_was(batch, tmp_path):
    base = MODELS["SimTier"](items_schema()).base
    before = {"crossed": False, "unprojected": False}
    plain = ck.Schema([dataclasses.replace(f, **before) for f in base.schema])
    old = ck.models.AT4CTR(ck.models.SimTier(ck.models.DIN(plain, **DIN), WIDTH))
    assert not any(name in str(old.get_config()) for name in before)
    old.save(tmp_path / "old.keras")
    loaded = keras.models.load_model(tmp_path / "old.keras")
    assert loaded.tensors["item"].shape == (None, 8)
    for ours, theirs in zip(old.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    new = ck.models.AT4CTR(ck.models.SimTier(base, WIDTH))
    assert new.tensors["item"].shape == (None, 4)
    new.save(tmp_path / "new.keras")
    loaded = keras.models.load_model(tmp_path / "new.keras")
    assert loaded.base.base.schema["sim_tiers"].crossed
    x, _ = batch
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), new.predict(x, verbose=0))


@pytest.mark.parametrize("normalize", [None, "softmax"])
def test_an_extractor_leaves_out_past_items_without_a_vector(batch, normalize):
    x, _ = batch
    model = extractor(items_schema(), attention_normalize=normalize)
    past, vectors = (x[name].numpy() for name in ("history_item_id", "history_item_id_vector"))
    known = vectors.any(axis=-1)
    assert ((past > 0) & ~known).any()
    alone = {**x, "history_item_id": np.where(known, past, 0)}
    expected = model.predict(alone, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("joint", [False, True])
def test_the_extractor_learns_with_the_ranker_only_if_joint(folder, joint):
    schema = items_schema()
    knowledge = extractor(schema)
    knowledge.compile(ck.optimizers.LazyAdam(0.01))
    rows = ck.data.read(folder / "train", knowledge.schema, 100)
    history = knowledge.fit(rows, epochs=4, verbose=0, shuffle=False).history
    assert history["auc"][-1] > history["auc"][0] + 0.05
    model = ck.models.MAKE.on(ck.models.DIN, schema, knowledge, joint=joint, **DIN)
    before = [w.numpy() for w in knowledge.weights]
    model.compile(ck.optimizers.LazyAdam(0.01))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Gradients do not exist")
        model.fit(ck.data.read(folder / "train", model.schema, 100), verbose=0, shuffle=False)
    moved = max(np.abs(w.numpy() - b).max() for w, b in zip(knowledge.weights, before, strict=True))
    assert (moved > 0) == joint


@pytest.mark.parametrize("joint", [False, True])
def test_only_a_joint_extractor_drops_out(batch, joint):
    x, _ = batch
    knowledge = extractor(items_schema(), dropout=0.5)
    model = ck.models.MAKE.on(ck.models.FM, items_schema(), knowledge, joint=joint, embedding_dim=4)
    graph = keras.Model(knowledge.input, knowledge.tensors["knowledge"])
    made = graph({name: x[name] for name in knowledge.input}, training=False)
    expected = model.base({**x, "knowledge": made}, training=True)
    got = model(x, training=True)
    assert np.allclose(got, expected, atol=1e-6) == (not joint)


def test_a_frozen_extractor_is_frozen_for_the_ranker_alone(folder, tmp_path):
    knowledge = extractor(items_schema())
    own = len(knowledge.trainable_weights)
    options = {"schema": items_schema(), "extractor": knowledge, "embedding_dim": 4}
    joint = ck.models.MAKE.on(ck.models.FM, joint=True, **options)
    number = len(joint.trainable_weights)
    frozen = ck.models.MAKE.on(ck.models.FM, **options)
    logit = 2  # The kernel and bias of the extractor's own, which are not for the ranker's loss.
    assert len(joint.trainable_weights) == number == len(frozen.trainable_weights) + own - logit
    assert len(frozen.trainable_variables) == len(frozen.trainable_weights)
    assert not set(map(id, ck.models.AT4CTR(frozen).trainable_weights)) & set(
        map(id, knowledge.weights)
    )
    assert len(knowledge.trainable_weights) == own
    joint.save_weights(tmp_path / "m.weights.h5")
    frozen.load_weights(tmp_path / "m.weights.h5")  # One layout, that of earlier versions too.
    before = [w.numpy() for w in knowledge.weights]
    knowledge.compile(ck.optimizers.LazyAdam(0.01))
    knowledge.fit(ck.data.read(folder / "train", knowledge.schema, 300), verbose=0, shuffle=False)
    moved = [np.abs(w.numpy() - b).max() for w, b in zip(knowledge.weights, before, strict=True)]
    assert max(moved) > 0


@pytest.mark.parametrize("name", ["SimTier", "SimTierMAKE"])
def test_trained_as_a_job(name, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "data")
    shutil.copytree(folder / "train", tmp_path / "data/valid")
    options = {"base": "DNN", "base_options": {"embedding_dim": 4, "units": [4]}, "num_tiers": 3}
    if name == "SimTierMAKE":
        options |= {"extractor": {"units": [4], "attention_units": [3]}, "extractor_epochs": 2}
    config = training.TrainingConfig(
        data=str(tmp_path / "data"), out=str(tmp_path / "out"), model=name, options=options,
        epochs=1, batch_size=100,
    )  # fmt: skip
    trained = training.train(config)
    # That of the items out of vocabulary.
    assert capsys.readouterr().err.count("item vectors: 1 of 18 items have no vector") == 1
    model = training.load_model(trained.model)
    assert model.base.schema["sim_tiers"].width == 3 and model.input["item_id_vector"].shape[1] == 6
    assert training.train(config, progress=False).history == trained.history
    if name == "SimTierMAKE":
        phase_one = training.load_model(tmp_path / "out/extractor/best.keras")
        for mine, theirs in zip(model.extractor.weights, phase_one.weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        for wrong in ({"extractor": "best.keras"}, {"extractor_epochs": -1}):
            bad = dataclasses.replace(config, options=options | wrong, out=str(tmp_path / "bad"))
            with pytest.raises(ValueError, match=f"Received: `{next(iter(wrong))}="):
                training.train(bad, progress=False)
    assert training.evaluate(model, tmp_path / "data/valid").rows == 600


def test_a_base_of_item_vectors_in_another_model(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "data")
    shutil.copytree(folder / "train", tmp_path / "data/valid")
    options = {"base": "SimTier", "base_options": {"base": "DNN", "num_tiers": 3}}
    config = training.TrainingConfig(
        data=str(tmp_path / "data"), out=str(tmp_path / "out"), model="CL4CTR", options=options,
        epochs=1, batch_size=100,
    )  # fmt: skip
    model = training.load_model(training.train(config).model)
    assert "item vectors: 1 of 18 items" in capsys.readouterr().err
    assert model.base.width == WIDTH
    assert item_vectors_of(tmp_path / "out/best.keras") == {"encoder": "by hand"}
    table = ck.data.VectorTable.of_items(tmp_path / "data")
    table.extended([99], np.eye(WIDTH, dtype="float32")[:1])
    with pytest.raises(ValueError, match="another vectors: .*--restart"):
        training.train(config, progress=False)


def test_bad_arguments():
    schema = items_schema()
    with pytest.raises(ValueError, match="must take 'sim_tiers'; `SimTier.on` builds one"):
        ck.models.SimTier(ck.models.DIN(schema), WIDTH)
    with pytest.raises(ValueError, match="needs an id of items and a history"):
        ck.models.SimTier.on(ck.models.FM, ck.Schema([f for f in schema if f.role == "user"]), 3)
    with pytest.raises(ValueError, match="must take vectors of items"):
        ck.models.VectorFusion(ck.models.DIN(schema))
    with pytest.raises(ValueError, match="Received: `num_tiers=0`"):
        ck.models.SimTier.on(ck.models.DIN, schema, WIDTH, num_tiers=0)
    with pytest.raises(ValueError, match="Received: `base='Foo'`"):
        training.build_model("SimTier", schema, {"base": "Foo", "width": 3})
    with pytest.raises(ValueError, match="Received: `base='Foo'`"):
        training.build_model("AT4CTR", schema, {"base": "Foo"})
    other = [dataclasses.replace(f, name=f"past_{f.name}") if f.length else f for f in schema]
    with pytest.raises(ValueError, match="takes 'history_item_id', which the rows of the base"):
        ck.models.MAKE.on(ck.models.DNN, ck.Schema(other), extractor(schema))
    model = MODELS["MAKE"](schema)
    with pytest.raises(ValueError, match="knowledge is 14 wide. Received.*`width=15`"):
        wide = ck.models.KnowledgeExtractor(schema, 5, units=(6, 3), attention_units=(4,))
        ck.models.MAKE(model.base, wide)
