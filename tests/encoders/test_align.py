"""Alignment on planted products: photos and texts are two linear views of one latent vector a product."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from endcap.core.errors import ArtifactError, CallerError
from endcap.core.types import Float32Array
from endcap.encoders.align import Alignment, Settings, unit
from endcap.encoders.align_fit import AlignmentConfig, fit_alignment

METHODS = ("contrastive", "ridge")
QUICK = {"epochs": 30, "batch_size": 64, "learning_rate": 0.02, "decays": (0.1,), "rotations": 1}


class Planted(NamedTuple):
    """texts: a row a product. images, shows: a row a photo."""

    texts: Float32Array
    images: Float32Array
    shows: np.ndarray

    def photos(self, of: np.ndarray) -> tuple[Float32Array, Float32Array]:
        return self.images[of], self.texts[self.shows[of]]


def planted(products: int = 60, photos: int = 10, noise: float = 0.5, seed: int = 0) -> Planted:
    draw = np.random.default_rng(seed)
    latent = draw.standard_normal((products, 8))
    texts = unit((latent @ draw.standard_normal((8, 20)) + 0.1).astype(np.float32))
    shows = np.repeat(np.arange(products), photos)
    seen = latent[shows] + noise * draw.standard_normal((len(shows), 8))
    images = seen @ draw.standard_normal((8, 30)) + noise * draw.standard_normal((len(shows), 30)) + 3
    return Planted(texts, images.astype(np.float32), shows)


def config(method: str, **changes: object) -> AlignmentConfig:
    return AlignmentConfig.model_validate(QUICK | {"method": method} | changes)


def first_of(scores: Float32Array, shows: np.ndarray, among: int = 3) -> float:
    return float(np.mean((scores >= scores[np.arange(len(shows)), shows][:, None]).sum(1) <= among))


@pytest.fixture(scope="module")
def shop() -> Planted:
    return planted()


@pytest.mark.parametrize("method", METHODS)
def test_pictures_find_texts_and_texts_pictures(shop: Planted, method: str) -> None:
    learned = np.arange(len(shop.shows)) % 10 < 7
    fitted = fit_alignment(*shop.photos(learned), config(method))
    projected, shows = fitted.project(shop.images[~learned]), shop.shows[~learned]
    assert projected.dtype == np.float32
    assert projected.shape == (180, 20)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)
    assert first_of(projected @ shop.texts.T, shows) > 0.85  # .05 by chance
    best = fitted.images_for(shop.texts, projected).argmax(axis=1)
    assert (shows[best] == np.arange(60)).mean() > 0.85


@pytest.mark.parametrize("method", METHODS)
def test_products_that_were_never_shown_are_found_too(method: str) -> None:
    shop = planted(noise=1.0)
    new = shop.shows >= 45
    fitted = fit_alignment(*shop.photos(~new), config(method))
    projected = fitted.project(shop.images[new])
    bare = first_of(projected @ shop.texts.T, shop.shows[new])
    discounted = first_of(fitted.texts_for(projected, shop.texts), shop.shows[new])
    assert bare > 0.3  # .05 by chance
    assert fitted.settings.discount > 0
    assert discounted > bare
    familiarity = fitted.familiarity(shop.texts)
    assert familiarity[:45].mean() > familiarity[45:].mean()


def test_the_discount_by_share_serves_what_will_be_asked() -> None:
    """The more questions are about new products, the more they are favoured; with none of them, nothing is lost."""
    shop = planted(noise=1.0)
    learned = shop.photos(shop.shows < 45)
    by_share = [fit_alignment(*learned, config("ridge"), new_share=share).settings.discount for share in (0, 0.3, 1)]
    assert by_share == sorted(by_share)
    assert by_share[0] == 0 < by_share[2]


def test_least_squares_is_least_squares(shop: Planted) -> None:
    """With next to no regularisation it is numpy's solution, and a relation that is linear is found exactly."""
    images = shop.images[:, :8]
    targets = shop.texts[shop.shows]
    fitted = fit_alignment(images, targets, config("ridge", strengths=[1e-9]))
    with_one = np.hstack([images, np.ones((len(images), 1))]).astype(np.float64)
    expected = np.linalg.lstsq(with_one, targets.astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(fitted.weights, expected[:-1], atol=1e-4)
    np.testing.assert_allclose(fitted.bias, expected[-1], atol=1e-3)


@pytest.mark.parametrize(
    ("method", "offered", "better"),
    [
        ("ridge", {"strengths": (1e4, 0.1)}, {"strength": 0.1}),
        ("contrastive", {"temperatures": (50.0, 0.1), "decays": (0.1,)}, {"temperature": 0.1}),
    ],
)
@pytest.mark.parametrize("held_out", [True, False])
def test_the_setting_that_does_better_on_what_was_left_out_is_taken(
    shop: Planted, method: str, offered: dict[str, object], better: dict[str, float], held_out: bool
) -> None:
    aside = np.arange(len(shop.shows)) % 10 == 9
    fitted = fit_alignment(
        *shop.photos(~aside), config(method, **offered), held_out=shop.photos(aside) if held_out else None
    )
    settings = {"temperature": fitted.settings.temperature, **fitted.settings.fitted}
    assert {name: settings[name] for name in better} == better
    assert 0 < float(settings["mean_reciprocal_rank"]) <= 1


@pytest.mark.parametrize("method", METHODS)
def test_held_out_photos_are_not_learned_from(shop: Planted, method: str) -> None:
    """Wrong ones change what is chosen at most, and here there is nothing to choose."""
    aside = np.arange(len(shop.shows)) % 10 == 9
    only = {"strengths": (0.1,), "temperatures": (0.1,)}
    one = fit_alignment(*shop.photos(~aside), config(method, **only), held_out=shop.photos(aside))
    wrong = (shop.images[aside][::-1], shop.texts[shop.shows[aside]])
    other = fit_alignment(*shop.photos(~aside), config(method, **only), held_out=wrong)
    np.testing.assert_array_equal(one.weights, other.weights)


@pytest.mark.parametrize("method", METHODS)
def test_fits_repeat_themselves(shop: Planted, method: str) -> None:
    first, again = (fit_alignment(*shop.photos(shop.shows < 30), config(method)) for _ in range(2))
    np.testing.assert_array_equal(first.weights, again.weights)
    np.testing.assert_array_equal(first.bias, again.bias)
    assert first.settings == again.settings


@pytest.mark.parametrize("method", METHODS)
def test_photos_without_a_vector_teach_nothing(shop: Planted, method: str) -> None:
    images, texts = shop.photos(shop.shows < 20)
    clean = fit_alignment(images, texts, config(method))
    with_gaps = np.concatenate([images, np.zeros((5, 30), np.float32), images[:3]])
    texts_too = np.concatenate([texts, texts[:5], np.zeros((3, 20), np.float32)])
    np.testing.assert_array_equal(fit_alignment(with_gaps, texts_too, config(method)).weights, clean.weights)
    projected = clean.project(with_gaps)
    assert not projected[200:205].any()
    assert np.linalg.norm(projected[[0, 205]], axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_handful_of_products_will_do(method: str) -> None:
    """Too few to leave any out: the middle setting, and no discount."""
    few = planted(products=4, photos=6, noise=0.1)
    fitted = fit_alignment(few.images, few.texts[few.shows], config(method))
    assert first_of(fitted.project(few.images) @ few.texts.T, few.shows, 1) == 1
    assert fitted.settings.discount == 0


def test_photos_of_one_product_are_no_negatives_of_each_other() -> None:
    """Two products with a hundred and two photos: both are told as surely as they can be."""
    draw = np.random.default_rng(0)
    texts = unit(draw.standard_normal((2, 6)).astype(np.float32))
    shows = np.array([0] * 100 + [1] * 2)
    images = (np.eye(4)[shows] + 0.01 * draw.standard_normal((102, 4))).astype(np.float32)
    fitted = fit_alignment(images, texts[shows], config("contrastive", epochs=60))
    scores = fitted.project(images) @ texts.T
    assert (scores.argmax(1) == shows).all()
    assert (scores[:100, 0] > 0.8).all()


def test_a_picture_near_to_everything_comes_last() -> None:
    texts = np.eye(3, dtype=np.float32)
    projected = unit(np.array([[1, 1, 1], [0.55, 0.05, 0.05]], np.float32))
    aligned = Alignment(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), texts, Settings(0.1))
    logs = aligned.images_for(texts, projected)
    assert logs.shape == (3, 2)
    np.testing.assert_allclose(np.exp(logs).sum(axis=0), 1, atol=1e-5)
    assert logs[0, 1] > logs[0, 0]
    cosines = (projected @ texts.T / 0.1).astype(np.float64)
    expected = cosines - np.log(np.exp(cosines).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(logs, expected.T, atol=1e-5)


def test_many_texts_take_no_more_memory_than_few() -> None:
    """In pieces, to the same effect: the table of all against all would have 40 million numbers."""
    draw = np.random.default_rng(0)
    texts, learned = (unit(draw.standard_normal((rows, 4)).astype(np.float32)) for rows in (8000, 5000))
    aligned = Alignment(np.eye(4, dtype=np.float32), np.zeros(4, np.float32), learned, Settings(0.1))
    tracemalloc.start()
    familiarity, drawn = aligned.familiarity(texts), aligned.drawn(texts, learned)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 110e6
    last = slice(-3, None)
    np.testing.assert_allclose(familiarity[last], (texts[last] @ learned.T).max(axis=1), atol=1e-6)
    np.testing.assert_allclose(drawn[last], 0.1 * np.log(np.exp(10 * (texts[last] @ learned.T)).sum(axis=1)), atol=1e-5)


def test_the_discount_is_of_texts_that_photos_came_close_to() -> None:
    learned = np.array([[1, 0, 0]], np.float32)
    aligned = Alignment(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), learned, Settings(0.1, 0.5))
    texts = unit(np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0]], np.float32))
    np.testing.assert_allclose(aligned.familiarity(texts), [1, 0, 0])
    np.testing.assert_allclose(aligned.texts_for(texts[:1], texts), [[0.5, 0, -1]])


class TestSaving:
    def test_keeps_every_number(self, shop: Planted, tmp_path: Path):
        fitted = fit_alignment(*shop.photos(shop.shows < 30), config("ridge"))
        fitted.save(tmp_path)
        loaded = Alignment.load(tmp_path)
        assert loaded.settings == fitted.settings
        np.testing.assert_array_equal(loaded.project(shop.images), fitted.project(shop.images))
        np.testing.assert_array_equal(loaded.familiarity(shop.texts), fitted.familiarity(shop.texts))

    @pytest.mark.parametrize("damage", ["gone", "cut", "json", "shape"])
    def test_tells_a_damaged_folder(self, tmp_path: Path, damage: str):
        flat = np.zeros((1, 2), np.float32)
        Alignment(np.zeros((3, 2), np.float32), np.zeros(2, np.float32), flat, Settings(0.1)).save(tmp_path)
        if damage == "gone":
            (tmp_path / "bias.npy").unlink()
        elif damage == "cut":
            (tmp_path / "weights.npy").write_bytes((tmp_path / "weights.npy").read_bytes()[:-4])
        elif damage == "json":
            (tmp_path / "alignment.json").write_text('{"temperature": "warm"}')
        else:
            np.save(tmp_path / "bias.npy", np.zeros(3, np.float32))
        with pytest.raises(ArtifactError, match=r"alignment.*Fit"):
            Alignment.load(tmp_path)


@pytest.mark.parametrize(
    ("images", "texts", "said"),
    [((5, 3), (4, 2), "Give a row of each"), ((5,), (5, 2), "Give a row of each"), ((5, 3), (5, 2), "two or more")],
)
def test_what_cannot_be_fitted_is_the_callers_error(images: tuple[int, ...], texts: tuple[int, ...], said: str) -> None:
    with pytest.raises(CallerError, match=said):
        fit_alignment(np.ones(images, np.float32), np.ones(texts, np.float32))


def test_vectors_of_another_encoder_are_refused() -> None:
    aligned = Alignment(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), np.zeros((0, 3), np.float32))
    with pytest.raises(CallerError, match=r"\(2, 4\), not \(n, 3\)"):
        aligned.project(np.ones((2, 4), np.float32))


def test_what_is_fitted_is_used_without_torch() -> None:
    code = "import sys, endcap.encoders.align, endcap.encoders.align_fit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
