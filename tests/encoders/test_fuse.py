"""Fusion on planted items: every modality is a noisy linear view of one latent vector an item."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array
from endcap.encoders.align import unit
from endcap.encoders.fuse import Fusion, FusionConfig, Projection
from endcap.encoders.fuse_fit import _loss, _Views, fit_fusion

WIDTHS = {"text": 40, "image": 30, "sound": 36}
QUICK = FusionConfig(dim=30, steps=200)
Vectors = dict[str, Float32Array]


def planted(noise: dict[str, float], items: int = 800) -> tuple[Float32Array, Vectors]:
    """The latent vectors, and the modalities in order."""
    draw = np.random.default_rng(0)
    latent = draw.standard_normal((items, 10)).astype(np.float32)
    views = {}
    for name, spread in noise.items():
        seen = latent + spread * draw.standard_normal(latent.shape)
        mixed = seen @ draw.standard_normal((10, WIDTHS[name])) / 3 + 0.3 * draw.standard_normal((items, WIDTHS[name]))
        views[name] = unit((mixed + 1).astype(np.float32))
    return unit(latent), views


def nearest(vectors: Float32Array, count: int = 10) -> np.ndarray:
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -2)
    return np.argsort(-alike, axis=1)[:, :count]


def found(vectors: Float32Array, latent: Float32Array) -> float:
    """The share of each item's ten true neighbours that are among its ten nearest."""
    pairs = zip(nearest(unit(vectors)), nearest(latent), strict=True)
    return float(np.mean([len(set(ours) & set(true)) / 10 for ours, true in pairs]))


@pytest.fixture(scope="module")
def three() -> tuple[Float32Array, Vectors]:
    return planted({"text": 0.4, "image": 0.8, "sound": 1.6})


@pytest.fixture(scope="module")
def fusion(three: tuple[Float32Array, Vectors]) -> Fusion:
    return fit_fusion(three[1], QUICK)


@pytest.mark.parametrize("noise", [{"text": 0.7, "image": 0.7}, {"text": 0.4, "image": 0.8, "sound": 1.6}])
def test_together_they_say_more_than_each_alone(noise: dict[str, float]) -> None:
    latent, views = planted(noise)
    fused = found(fit_fusion(views, QUICK).fuse(views), latent)
    alone = [found(view - view.mean(0), latent) for view in views.values()]
    joined = found(np.hstack([unit(view - view.mean(0)) for view in views.values()]), latent)
    assert fused > 1.05 * max(alone)
    assert fused > joined


def test_what_agrees_with_the_others_more_weighs_more(fusion: Fusion, three: tuple[Float32Array, Vectors]) -> None:
    text, image, sound = fusion.gates(three[1]).mean(axis=0)
    assert text > image > sound


def test_pairs_say_which_of_two_is_better() -> None:
    latent, views = planted({"text": 0.4, "image": 1.2})
    partners = nearest(latent, 3)
    pairs = np.stack([np.repeat(np.arange(len(latent)), 3), partners.reshape(-1)], axis=1)
    without, with_pairs = fit_fusion(views, QUICK), fit_fusion(views, QUICK, pairs=pairs)
    assert with_pairs.gates(views)[:, 0].mean() > without.gates(views)[:, 0].mean() + 0.05
    assert found(with_pairs.fuse(views), latent) > found(without.fuse(views), latent)


@pytest.mark.parametrize(("items", "pairs"), [(300, 8), (8, 300)])
def test_what_agrees_and_what_belongs_together_take_turns_however_many_there_are(items: int, pairs: int) -> None:
    _, views = planted({"text": 0.4, "image": 1.2}, items)
    places = np.arange(2 * pairs).reshape(-1, 2) % items
    steps = _Views(views, FusionConfig(batch_size=4), places).steps(7)
    assert [one.items.equal(other.items) for one, other in steps] == [True, False, True, False, True, False, True]


def test_nothing_is_told_from_itself_nor_from_what_it_belongs_to() -> None:
    """Item 9 belongs to all others, and 1 to 0; the vectors could not be worse."""
    ones, others = torch.tensor([0, 1, 2]), torch.tensor([9, 9, 9])
    worst = torch.eye(3), torch.eye(3)[[1, 2, 0]]
    assert _loss(*worst, ones, others) == 0
    assert _loss(*worst, ones, torch.tensor([1, 2, 0])) == pytest.approx(np.log(1 + 1))
    assert _loss(*worst, ones, torch.tensor([7, 8, 9])) == pytest.approx(np.log(2 + np.e))


def test_pictures_that_are_all_the_same_say_little() -> None:
    """A third of the items show a placeholder."""
    _, views = planted({"text": 0.5, "image": 0.5})
    same = np.arange(len(views["image"])) % 3 == 0
    noise = 0.02 * np.random.default_rng(1).standard_normal((int(same.sum()), WIDTHS["image"]))
    views["image"][same] = unit((views["image"][:1] + noise).astype(np.float32))
    gates = fit_fusion(views, QUICK).gates(views)[:, 1]
    assert gates[same].mean() < gates[~same].mean() - 0.1


class TestGaps:
    def test_gates_sum_to_one_over_what_is_there(self, fusion: Fusion, three: tuple[Float32Array, Vectors]):
        views = {name: view[:8].copy() for name, view in three[1].items()}
        views["image"][:4] = 0
        views["sound"][2:6] = 0
        views["text"][3] = 0
        gates = fusion.gates(views)
        there = np.stack([view.any(axis=1) for view in views.values()], axis=1)
        np.testing.assert_array_equal(gates > 0, there)
        np.testing.assert_allclose(gates.sum(axis=1), [1, 1, 1, 0, 1, 1, 1, 1], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(fusion.fuse(views), axis=1), [1, 1, 1, 0, 1, 1, 1, 1], atol=1e-6)

    def test_an_item_without_a_picture_lies_where_it_would_with_one(
        self, fusion: Fusion, three: tuple[Float32Array, Vectors]
    ):
        latent, views = three
        whole = fusion.fuse(views)
        bare = fusion.fuse({name: view * (name != "image") for name, view in views.items()})
        assert ((bare @ whole.T).argmax(axis=1) == np.arange(len(whole))).mean() > 0.95
        assert found(bare, latent) > 0.8 * found(whole, latent)

    def test_what_is_left_out_is_missing_for_all(self, fusion: Fusion, three: tuple[Float32Array, Vectors]):
        zero = {name: view * (name == "text") for name, view in three[1].items()}
        np.testing.assert_array_equal(fusion.fuse({"text": three[1]["text"]}), fusion.fuse(zero))

    def test_are_learned_with(self):
        """Half the items without a picture, the other half without sound: fitted, and better than text alone."""
        latent, views = planted({"text": 0.6, "image": 0.6, "sound": 0.6})
        half = np.arange(len(latent)) % 2 == 0
        views["image"][half], views["sound"][~half] = 0, 0
        fused = fit_fusion(views, QUICK).fuse(views)
        assert found(fused, latent) > found(views["text"] - views["text"].mean(0), latent)


def test_a_row_depends_on_its_own_item_alone(fusion: Fusion, three: tuple[Float32Array, Vectors]) -> None:
    order = np.random.default_rng(2).permutation(800)
    shuffled = fusion.fuse({name: view[order] for name, view in three[1].items()})
    np.testing.assert_allclose(shuffled, fusion.fuse(three[1])[order], atol=1e-6)
    alone = np.concatenate(
        [fusion.fuse({name: view[row : row + 1] for name, view in three[1].items()}) for row in (0, 5)]
    )
    np.testing.assert_allclose(alone, fusion.fuse(three[1])[[0, 5]], atol=1e-6)


def test_what_is_given_is_as_the_formula_says() -> None:
    """Two modalities of two numbers, by hand."""
    turn, plain = np.array([[0, 1], [1, 0]], np.float32), np.eye(2, dtype=np.float32)
    none, sideways = np.zeros(2, np.float32), np.array([1, 0], np.float32)
    fusion = Fusion({"text": Projection(plain, none, sideways, 0.5), "image": Projection(turn, none, none, 0.0)})
    given = {"text": np.array([[3, 0]], np.float32), "image": np.array([[2, 0]], np.float32)}
    sure = np.exp([1.5, 0.0])
    np.testing.assert_allclose(fusion.gates(given), [sure / sure.sum()], atol=1e-6)
    np.testing.assert_allclose(fusion.fuse(given), [sure / np.linalg.norm(sure)], atol=1e-6)


@pytest.mark.parametrize("other", [None, np.zeros((5, 7), np.float32)])
def test_one_modality_is_kept_as_it_is(other: Float32Array | None, tmp_path: Path) -> None:
    text = unit(np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32))
    text[3] = 0
    given = {"text": text} | ({} if other is None else {"image": other})
    fusion = fit_fusion(given)
    assert fusion.dim == 6
    np.testing.assert_array_equal(fusion.fuse(given), text)
    if other is not None:
        with pytest.raises(CallerError, match="'image' was not fitted"):
            fusion.fuse({"text": text, "image": np.ones((5, 7), np.float32)})
        assert not fusion.fuse({"image": other}).any()
    assert fusion.gates({"text": text})[:, 0].tolist() == [1, 1, 1, 0, 1]
    fusion.save(tmp_path)
    np.testing.assert_array_equal(Fusion.load(tmp_path).fuse({"text": text}), text)


def test_fits_repeat_themselves(three: tuple[Float32Array, Vectors]) -> None:
    first, again = (fit_fusion(three[1], FusionConfig(dim=16, steps=20)).fuse(three[1]) for _ in range(2))
    np.testing.assert_array_equal(first, again)


class TestSaving:
    def test_keeps_every_number(self, fusion: Fusion, three: tuple[Float32Array, Vectors], tmp_path: Path):
        fusion.save(tmp_path)
        loaded = Fusion.load(tmp_path)
        assert loaded.widths == fusion.widths
        np.testing.assert_array_equal(loaded.fuse(three[1]), fusion.fuse(three[1]))

    @pytest.mark.parametrize("damage", ["gone", "cut", "json", "shape", "width"])
    def test_tells_a_damaged_folder(self, fusion: Fusion, tmp_path: Path, damage: str):
        fusion.save(tmp_path)
        settings, trust = tmp_path / "fusion.json", tmp_path / "0-trust.npy"
        if damage == "gone":
            trust.unlink()
        elif damage == "cut":
            trust.write_bytes(trust.read_bytes()[:-4])
        elif damage == "shape":
            np.save(trust, np.zeros(3, np.float32))
        else:
            said = {"json": ('"width"', '"breadth"'), "width": ("40", "41")}[damage]
            settings.write_text(settings.read_text().replace(*said))
        with pytest.raises(ArtifactError, match=r"fusion cannot be read.*Fit"):
            Fusion.load(tmp_path)


class TestWhatCannotBeFused:
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"text": np.zeros((3, 4), np.float32)},
            {"text": np.ones((3, 4), np.float32), "image": np.ones((2, 4), np.float32)},
        ],
    )
    def test_nothing(self, given: Vectors):
        with pytest.raises(CallerError, match="nothing to fuse"):
            fit_fusion(given)

    def test_modalities_that_nothing_ties(self):
        text, image = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
        text[:2], image[2:] = 0, 0
        with pytest.raises(CallerError, match="Fewer than two items have several"):
            fit_fusion({"text": text, "image": image})
        tied = fit_fusion({"text": text, "image": image}, FusionConfig(steps=5), pairs=np.array([[0, 2], [1, 3]]))
        np.testing.assert_allclose(np.linalg.norm(tied.fuse({"text": text, "image": image}), axis=1), 1, atol=1e-5)

    @pytest.mark.parametrize(
        "given",
        [
            {"smell": np.ones((2, 3), np.float32)},
            {"text": np.ones((2, 39), np.float32)},
            {"text": np.ones((2, 40), np.float32), "image": np.ones((3, 30), np.float32)},
            {},
        ],
    )
    def test_what_it_was_not_fitted_for(self, fusion: Fusion, given: Vectors):
        with pytest.raises(CallerError, match=r"text \(40\), image \(30\), sound \(36\)"):
            fusion.fuse(given)


def test_fusing_needs_no_torch() -> None:
    code = "import sys, endcap.encoders.fuse; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
