"""What a training tells on standard error."""

import pytest
import tensorflow as tf

from ctr_keras.training.progress import ProgressBar, progress_bar


def test_a_log_gets_one_line_an_epoch(capsys):
    bar = ProgressBar(steps=2)
    bar.set_params({"epochs": 2})
    logs = {f"val_a_metric_with_a_long_name_{n}": 0.5 for n in range(9)}
    for epoch in range(2):
        bar.on_epoch_begin(epoch)
        for batch in range(2):
            bar.on_train_batch_end(batch, {"loss": 0.25})
        bar.on_epoch_end(epoch, {"loss": 0.25, **logs})
    bar.on_train_end()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        ["epoch 1/2", "loss 0.2500"],
        ["epoch 2/2", "loss 0.2500"],
    ]
    assert all(line.endswith("long_name_8 0.5000") for line in lines)


def test_a_bar_ends_with_an_error(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # As on a terminal.
    rows = tf.data.Dataset.range(3)
    with pytest.raises(KeyboardInterrupt), progress_bar(rows, True) as (bar,):
        bar.set_params({"epochs": 2})
        bar.on_epoch_begin(0)
        assert bar._progress.live.is_started
        raise KeyboardInterrupt
    assert not bar._progress.live.is_started
    with progress_bar(rows, False) as bars:
        assert not bars
