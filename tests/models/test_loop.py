from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from endcap.core.errors import ArtifactError, ServiceError
from endcap.models.checkpoint import read_checkpoint
from endcap.models.config import LoopConfig
from endcap.models.loop import Progress, train
from endcap.models.optimisers import constant, cosine, linear, make_optimiser


class Line:
    """y = 3 x0 - 2 x1 with noisy batches; the metric can be scripted."""

    def __init__(self, model: nn.Module, metrics: list[float] | None = None) -> None:
        self.model, self.metrics, self.calls = model, metrics, 0

    def batches(self, epoch: int) -> list[Tensor]:
        return list(torch.randn(8, 32, 2, generator=torch.Generator().manual_seed(epoch)))

    def loss(self, batch: Tensor) -> Tensor:
        wanted = 3 * batch[:, :1] - 2 * batch[:, 1:] + 0.1 * torch.randn(32, 1)
        return (self.model(batch) - wanted).square().mean()

    def metric(self) -> float | None:
        self.calls += 1
        if self.metrics is None:
            probe = torch.tensor([[1.0, 1.0]])
            return -abs(self.model(probe).item() - 1)
        return self.metrics[self.calls - 1]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.1), nn.Linear(8, 1))


def _interrupt_at(epoch: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.epoch == epoch and progress.step == 3:
            raise KeyboardInterrupt

    return stop


def test_learns_and_reports() -> None:
    model = _model()
    seen: list[Progress] = []
    report = train(model, Line(model), LoopConfig(lr=0.05, epochs=12, patience=12), progress=seen.append)
    assert report.stopped == "finished"
    assert report.epochs[-1].loss < 0.1 * report.epochs[0].loss
    assert report.best_metric == max(record.metric for record in report.epochs if record.metric is not None)
    assert (seen[-1].epoch, seen[-1].step, seen[-1].steps) == (12, 8, 8)


@pytest.mark.parametrize(
    ("epoch", "changes"),
    [
        (1, {}),
        (2, {}),
        (5, {}),
        (3, {"optimiser": "sgd", "schedule": "linear"}),
        (3, {"optimiser": "adafactor", "accumulate": 3}),
        (3, {"average": 0.9, "precision": "bfloat16", "schedule": "constant"}),
    ],
)
def test_interrupted_run_resumes_to_the_same_weights(tmp_path: Path, epoch: int, changes: dict[str, object]) -> None:
    config = LoopConfig.model_validate({"lr": 0.02, "epochs": 6, "patience": 6} | changes)
    whole, parts = _model(), _model()
    uninterrupted = train(whole, Line(whole), config)
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(parts, Line(parts), config, checkpoint=path, run_id="a", progress=_interrupt_at(epoch))
    again = _model()
    resumed = train(again, Line(again), config, checkpoint=path, run_id="a")
    assert resumed.resumed_after == epoch - 1
    assert [record.loss for record in resumed.epochs] == [record.loss for record in uninterrupted.epochs]
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])


def test_a_finished_run_is_not_repeated_and_a_strange_checkpoint_is_not_used(tmp_path: Path) -> None:
    config, path = LoopConfig(epochs=2), tmp_path / "run.safetensors"
    model = _model()
    train(model, Line(model), config, checkpoint=path, run_id="a")
    other = _model()
    task = Line(other)
    assert train(other, task, config, checkpoint=path, run_id="a").resumed_after == 2
    assert task.calls == 0
    assert torch.equal(other.state_dict()["0.weight"], model.state_dict()["0.weight"])
    third = _model()
    report = train(third, Line(third), config, checkpoint=path, run_id="b")
    assert report.stale_checkpoint
    assert report.resumed_after == 0


def test_a_half_written_checkpoint_does_not_replace_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model = _model()
    train(model, Line(model), LoopConfig(epochs=1), checkpoint=path)
    path.with_name(".run.safetensors.1.tmp").write_bytes(b"torn")
    assert train(model, Line(model), LoopConfig(epochs=1), checkpoint=path).resumed_after == 1
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="Delete it"):
        train(model, Line(model), LoopConfig(epochs=1), checkpoint=path)


def test_stops_after_patience_with_the_best_weights() -> None:
    model = _model()
    kept: dict[str, Tensor] = {}

    class Scripted(Line):
        def metric(self) -> float | None:
            value = super().metric()
            if self.calls == 2:
                kept.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return value

    report = train(model, Scripted(model, [0.1, 0.5, 0.4, 0.5, 0.3]), LoopConfig(epochs=9, patience=2))
    assert (report.stopped, report.best_epoch, len(report.epochs)) == ("patience", 2, 4)
    assert report.best_metric == 0.5
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())


def test_a_time_budget_ends_the_run_with_an_annealed_rate() -> None:
    model = _model()
    report = train(model, Line(model), LoopConfig(epochs=1_000_000, patience=1_000_000, max_seconds=0.05))
    assert report.stopped == "time"
    assert report.epochs[-1].metric is not None


def test_a_loss_that_is_no_number_is_an_error() -> None:
    model = _model()

    class Broken(Line):
        def loss(self, batch: Tensor) -> Tensor:
            return super().loss(batch) * float("nan")

    with pytest.raises(ServiceError, match="epoch 1, step 1"):
        train(model, Broken(model), LoopConfig())


def test_batches_added_up_are_one_large_batch() -> None:
    """Of equal halves; plain gradient descent shows it to the last digits."""

    class Halves(Line):
        def batches(self, epoch: int) -> list[Tensor]:
            return [half for batch in super().batches(epoch) for half in batch.chunk(2)]

        def loss(self, batch: Tensor) -> Tensor:
            return (self.model(batch) - batch[:, :1]).square().mean()

    class Wholes(Halves):
        def batches(self, epoch: int) -> list[Tensor]:
            return Line.batches(self, epoch)

    ends = []
    for task, accumulate in ((Wholes, 1), (Halves, 2)):
        model = _model().eval()
        model.train = lambda mode=True, model=model: model  # without dropout, which is drawn for each batch
        train(model, task(model), LoopConfig(optimiser="sgd", epochs=2, accumulate=accumulate, warmup_share=0))
        ends.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(ends[0], ends[1])


def test_a_batch_in_pieces_is_the_batch() -> None:
    """Of unequal length, weighed by it."""

    class Whole(Line):
        def loss(self, batch: Tensor) -> Tensor:
            return (self.model(batch) - batch[:, :1]).square().mean()

    def pieces(batch: Tensor) -> list[tuple[Tensor, float]]:
        return [(batch[:20], 20 / 32), (batch[20:], 12 / 32)]

    ends, losses = [], []
    for named in ({}, {"pieces": pieces}):
        model = _model().eval()
        model.train = lambda mode=True, model=model: model  # without dropout, which is drawn for each piece
        config = LoopConfig(optimiser="sgd", epochs=2, accumulate=2, warmup_share=0)
        losses.append([record.loss for record in train(model, Whole(model), config, **named).epochs])
        ends.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(ends[0], ends[1])
    assert losses[0] == pytest.approx(losses[1])


def test_weights_that_share_memory_are_kept_and_come_back(tmp_path: Path) -> None:
    """As an embedding and the head that says what was hidden do."""
    model = _model()
    model[0].again = model[2]
    config = LoopConfig(epochs=1)
    train(model, Line(model), config, checkpoint=tmp_path / "run.safetensors")
    other = _model()
    other[0].again = other[2]
    assert train(other, Line(other), config, checkpoint=tmp_path / "run.safetensors").resumed_after == 1
    assert torch.equal(other[2].weight, model[2].weight)


def test_frozen_weights_are_not_written(tmp_path: Path) -> None:
    model = _model()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    train(model, Line(model), LoopConfig(epochs=1), checkpoint=tmp_path / "run.safetensors")
    assert set(read_checkpoint(tmp_path / "run.safetensors").weights) == {"0.bias", "2.weight", "2.bias"}
    assert torch.equal(model[0].weight, before)


def test_averaged_weights_shake_less_than_the_latest() -> None:
    """With a rate that stays high, the mean of the weights is nearer to the truth than wherever they are last."""
    ends = []
    for average in (0.0, 0.95):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 1))
        train(model, Line(model), LoopConfig(lr=0.5, schedule="constant", epochs=20, patience=20, average=average))
        ends.append((model[0].weight.detach() - torch.tensor([[3.0, -2.0]])).norm().item())
    assert ends[1] < ends[0] / 2


def test_schedule() -> None:
    assert linear(0.55, 0.1) == pytest.approx(0.5)
    assert constant(0.05, 0.1) == pytest.approx(0.5)
    assert constant(0.9, 0.1) == 1
    assert cosine(0.05, 0.1) == pytest.approx(0.5)
    assert cosine(0.1, 0.1) == pytest.approx(1.0)
    assert cosine(0.55, 0.1) == pytest.approx(0.5)
    assert cosine(1.0, 0.1) == pytest.approx(0.0)


def test_weight_decay_spares_embeddings_norms_and_biases() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(5, 4), "norm": nn.LayerNorm(4), "linear": nn.Linear(4, 2)})
    decayed, plain = make_optimiser(model, LoopConfig(weight_decay=0.3)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 4)]
    assert decayed["weight_decay"] == 0.3
    assert len(plain["params"]) == 4
    assert plain["weight_decay"] == 0
