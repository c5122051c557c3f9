"""Each method learns what is planted, and none but `full` touches the base."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from endcap.core.errors import CallerError
from endcap.models.finetune.backbone import Backbone
from endcap.models.finetune.config import FinetuneConfig, MethodConfig
from endcap.models.finetune.methods import allot_rank, apply_method, merged, penalty, shares
from endcap.models.finetune.pretrained import load_backbone
from endcap.models.finetune.tuned import load_tuned
from endcap.models.finetune.tuner import Outcome

METHODS = ("full", "frozen", "lora", "adalora", "prefix", "ia3", "adapter")
TEXTS = ["red shoes", "blue milk", "a teal tent ; navy rope"]
Tuning = Callable[..., FinetuneConfig]


def fresh(tuning: Tuning, **method: object) -> Backbone:
    torch.manual_seed(0)
    backbone = load_backbone(tuning().base, tuning().base.name).eval()
    apply_method(backbone, MethodConfig.model_validate({"rank": 4, "alpha": 8.0, "width": 8, "length": 4} | method), 20)
    return backbone.eval()


def vectors(backbone: Backbone) -> Tensor:
    with torch.inference_mode():
        return backbone(TEXTS)


def base_weights(body: nn.Module) -> dict[str, Tensor]:
    """Under the names they have in the base, whatever a method wrapped around them."""
    wraps = (".base_layer", ".projection", "base_model.model.", "base_model.")
    return {reduce(lambda name, wrap: name.replace(wrap, ""), wraps, name): t for name, t in body.state_dict().items()}


@pytest.fixture(scope="module", params=METHODS)
def outcome(request: pytest.FixtureRequest, tuning: Tuning, colours: pl.DataFrame, tuned_on: Callable) -> Outcome:
    return tuned_on(colours, tuning(method={"kind": request.param}))


def test_learns_what_is_planted(outcome: Outcome) -> None:
    assert max(metrics["f1_macro"] for metrics in outcome.metrics) > 0.95


def test_the_base_stays_as_it_was(outcome: Outcome, tuning: Tuning) -> None:
    backbone = outcome.tuned.backbone
    base = load_backbone(tuning().base, tuning().base.name).body.state_dict()
    learned = base_weights(backbone.body)
    changed = {name for name, tensor in base.items() if not torch.equal(tensor, learned[name])}
    changed -= {"pooler.dense.weight", "pooler.dense.bias"}  # of no use, and drawn anew at each loading
    if backbone.method == "full":
        assert len(changed) > 0.9 * (len(base) - 2)
    elif backbone.method == "adapter":  # norms learn with them, as in the paper
        assert changed
        assert all("LayerNorm" in name and "encoder.layer" in name for name in changed)
    else:
        assert not changed


def test_a_saved_model_predicts_the_same(outcome: Outcome, colours: pl.DataFrame, tmp_path: Path) -> None:
    wanted = outcome.task.predict(colours)
    outcome.tuned.save(tmp_path)
    outcome.task.net, net = load_tuned(tmp_path).net, outcome.task.net
    found = outcome.task.predict(colours)
    outcome.task.net = net
    np.testing.assert_array_equal(found, wanted)
    assert (tmp_path / "body").is_dir() == (outcome.tuned.backbone.method == "full")


@pytest.mark.parametrize("kind", ["lora", "adalora", "ia3", "adapter"])
def test_changes_nothing_at_its_beginning(tuning: Tuning, kind: str) -> None:
    torch.testing.assert_close(vectors(fresh(tuning, kind=kind)), vectors(fresh(tuning)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "learn"),
    [
        ("frozen", 0),
        ("lora", 2 * (4 * (32 + 32) * 4 + 2 * (32 + 64) * 4)),
        ("ia3", 2 * (32 + 32 + 64)),
        ("prefix", 2 * 2 * 4 * 32),
        ("adapter", 2 * 2 * (32 * 8 + 8 + 8 * 32 + 32) + 2 * 2 * 64),
    ],
)
def test_so_many_parameters_learn(tuning: Tuning, kind: str, learn: int) -> None:
    """Two layers of four projections 32 -> 32, one up to 64 and one down; two norms of 64 each."""
    assert shares(fresh(tuning, kind=kind))[0] == learn


def test_targets_of_ones_own(tuning: Tuning) -> None:
    assert shares(fresh(tuning, kind="lora", targets=("query",)))[0] == 2 * (32 + 32) * 4
    assert shares(fresh(tuning, kind="ia3", targets=("value",)))[0] == 2 * 32


class TestAdaLora:
    @staticmethod
    def step(backbone: Backbone, number: int) -> None:
        optimiser = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
        backbone.zero_grad()
        backbone(TEXTS).square().sum().backward()
        optimiser.step()
        allot_rank(backbone, number)

    @staticmethod
    def ranks(backbone: Backbone) -> int:
        """Singular values that are not 0, over all layers."""
        named = backbone.body.named_parameters()
        return sum(int((p != 0).sum()) for name, p in named if "lora_E" in name)

    def test_takes_rank_away_down_to_its_budget(self, tuning: Tuning) -> None:
        backbone = fresh(tuning, kind="adalora")  # 12 layers of rank 6, to be 4 on average after 12 of 20 steps
        held = []
        for number in range(1, 21):
            self.step(backbone, number)
            held.append(self.ranks(backbone))
        assert held[0] == 12 * 6
        assert held == sorted(held, reverse=True)
        assert held[11] == held[-1] == 12 * 4

    def test_a_rank_of_one_can_be_had(self, tuning: Tuning) -> None:
        backbone = fresh(tuning, kind="adalora", rank=1)
        for number in range(1, 21):
            self.step(backbone, number)
        assert self.ranks(backbone) == 12

    def test_the_penalty_is_how_far_the_factors_are_from_orthogonal(self, tuning: Tuning) -> None:
        backbone = fresh(tuning, kind="adalora")
        with torch.no_grad():
            for name, factor in backbone.body.named_parameters():
                if "lora_A" in name or "lora_B" in name:
                    nn.init.orthogonal_(factor)
        assert penalty(backbone).item() == pytest.approx(0, abs=1e-5)
        with torch.no_grad():
            for name, factor in backbone.body.named_parameters():
                if "lora_A" in name or "lora_B" in name:
                    factor.mul_(2**0.5)
        assert penalty(backbone).item() == pytest.approx(0.5 * 6**0.5, rel=1e-4)  # |2I - I| of rank 6, halved
        assert penalty(fresh(tuning, kind="lora")) == 0


@pytest.mark.parametrize("kind", ["lora", "ia3", "adapter", "prefix"])
def test_a_causal_model_is_tuned_too(
    tuning: Tuning, colours: pl.DataFrame, tuned_on: Callable, tiny_causal: Path, tmp_path: Path, kind: str
) -> None:
    """Its last token's state stands for the text."""
    base = {"name": str(tiny_causal), "pooling": "last"}
    turned = colours.with_columns(pl.col("text").str.split(" ").list.reverse().list.join(" "))
    outcome = tuned_on(turned, tuning(base=base, method={"kind": kind}, train={"epochs": 6}))
    assert max(metrics["f1_macro"] for metrics in outcome.metrics) > 0.95
    outcome.tuned.save(tmp_path)
    again = load_tuned(tmp_path)
    assert again.backbone.pooling == "last"
    np.testing.assert_array_equal(again.embed(TEXTS), outcome.tuned.embed(TEXTS))


def test_what_cannot_be_folded_in_is_said(tuning: Tuning) -> None:
    assert merged(fresh(tuning, kind="adapter")) is None
    assert merged(fresh(tuning, kind="prefix")) is None


def test_layers_that_are_not_known_are_told(tuning: Tuning) -> None:
    strange = nn.Module()
    strange.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))])
    for kind, said in (("adapter", 'Choose `method.kind = "lora"`'), ("ia3", "method.targets")):
        backbone = fresh(tuning)
        backbone.body = strange
        strange.config = type("Config", (), {"hidden_size": 4})()
        with pytest.raises(CallerError, match=said):
            apply_method(backbone, MethodConfig(kind=kind), 10)
