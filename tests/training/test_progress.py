"""What a training tells on standard error."""

from ctr_keras.training.progress import ProgressBar


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
