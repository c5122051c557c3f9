"""Do pictures find texts, and texts pictures? Photos of groceries and the shop's descriptions of its 81 products.

`make bench NAME=multimodal DATA=<folder> SEEDS=3`, with `grocery-images` in the folder. The packaged image encoder (all
layers) is projected into the packaged text encoder's space by `fit_alignment`, on the photos of the official training
part; its settings are chosen on the validation part, taken in other shops, and on products left out of the fit; the
test part is looked at once. A product's text is its category path, name and English description. Means over seeds,
`..._sd` their standard deviation:

    recall@5_image_text              each test photo ranks the 81 texts by cosine: is the right one among five?
    precision@5_text_image           each text ranks the test photos: how many of the first five show it?
    precision@5_text_image_cosine    the same by the bare cosine, without the share among all texts
    ...__ridge                       the projection by least squares instead
    ...__plain                       least squares on the last layer alone and the descriptions alone
    ...__chance                      of any order at all

Products that no photo was learned from: 16 of the 81, drawn once for each seed, all else as above; their test photos
rank all 81 texts. Means over draws:

    recall@5_image_text_unseen                     by cosine
    recall@5_image_text_unseen_discounted          texts that photos were learned from at a discount
    recall@5_image_text_seen, ..._seen_discounted  what that costs the other 65, on their own test photos
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from tempfile import gettempdir

import numpy as np

from endcap.core.errors import CallerError
from endcap.core.types import Float32Array, Int64Array
from endcap.encoders.align import Alignment, Settings
from endcap.encoders.align_fit import AlignmentConfig, fit_alignment
from endcap.encoders.cache import CachedEncoder
from endcap.encoders.image import ImageEncoder, ImageEncoderConfig
from endcap.encoders.text import TextEncoder, TextEncoderConfig

NAME = "grocery-images"
UNSEEN = 16
FIRST = 5
PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Shop:
    """texts, descriptions: float32 [81, t]. images, last: part -> float32 [n, i]; shows: part -> int64 [n]."""

    texts: Float32Array
    descriptions: Float32Array
    images: dict[str, Float32Array]
    last: dict[str, Float32Array]
    shows: dict[str, Int64Array]

    def held_out(self) -> tuple[Float32Array, Float32Array]:
        return self.images["val"], self.texts[self.shows["val"]]


def run(data: Path | None, seeds: int) -> dict[str, float]:
    shop, figures = _shop(_folder(data)), dict[str, float]()
    figures |= {"products": len(shop.texts), "photos_learned_from": len(shop.shows["train"])}
    figures |= {"photos_asked": len(shop.shows["test"])} | dict(_chance(shop)) | dict(_plain(shop))
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name, value in (*_seen(shop, seed), *_unseen(shop, seed)):
            print(f"{time.strftime('%H:%M:%S')} seed {seed} {name} {value:.4f}", flush=True)
            found.setdefault(name, []).append(value)
    figures |= {name: mean(values) for name, values in found.items()}
    return figures | {f"{name}_sd": stdev(values) for name, values in found.items() if seeds > 1}


def _seen(shop: Shop, seed: int) -> Iterator[tuple[str, float]]:
    started = time.monotonic()
    for end, method in (("", "contrastive"), ("__ridge", "ridge")):
        config = AlignmentConfig.model_validate({"method": method, "seed": seed})
        fitted = fit_alignment(shop.images["train"], shop.texts[shop.shows["train"]], config, held_out=shop.held_out())
        print(f"{time.strftime('%H:%M:%S')} {fitted.settings}", flush=True)
        yield from _measured(fitted, shop.images["test"], shop.texts, shop.shows["test"], end)
        if not end:
            yield "seconds_fit", time.monotonic() - started


def _measured(
    fitted: Alignment, images: Float32Array, texts: Float32Array, shows: Int64Array, end: str
) -> Iterator[tuple[str, float]]:
    projected = fitted.project(images)
    yield f"recall@{FIRST}_image_text{end}", recall(projected @ texts.T, shows)
    yield f"precision@{FIRST}_text_image{end}", precision(fitted.images_for(texts, projected), shows)
    yield f"precision@{FIRST}_text_image_cosine{end}", precision(texts @ projected.T, shows)


def _plain(shop: Shop) -> Iterator[tuple[str, float]]:
    """What the simplest thing reaches, its strength chosen on the validation part too."""
    texts, shows = shop.descriptions, shop.shows
    fitted = fit_alignment(
        shop.last["train"],
        texts[shows["train"]],
        AlignmentConfig(method="ridge"),
        held_out=(shop.last["val"], texts[shows["val"]]),
    )
    return _measured(fitted, shop.last["test"], texts, shows["test"], "__plain")


def _unseen(shop: Shop, seed: int) -> Iterator[tuple[str, float]]:
    unseen = np.random.default_rng(seed).permutation(len(shop.texts))[:UNSEEN]
    learned = ~np.isin(shop.shows["train"], unseen)
    known = ~np.isin(shop.shows["val"], unseen)
    asked = np.isin(shop.shows["test"], unseen)
    fitted = fit_alignment(
        shop.images["train"][learned],
        shop.texts[shop.shows["train"][learned]],
        AlignmentConfig(seed=seed),
        held_out=(shop.images["val"][known], shop.texts[shop.shows["val"][known]]),
    )
    print(f"{time.strftime('%H:%M:%S')} {fitted.settings}", flush=True)
    bare = Alignment(fitted.weights, fitted.bias, fitted.learned, Settings(fitted.settings.temperature))
    for name, photos in (("unseen", asked), ("seen", ~asked)):
        projected, shows = fitted.project(shop.images["test"][photos]), shop.shows["test"][photos]
        yield f"recall@{FIRST}_image_text_{name}", recall(bare.texts_for(projected, shop.texts), shows)
        yield f"recall@{FIRST}_image_text_{name}_discounted", recall(fitted.texts_for(projected, shop.texts), shows)
    yield "discount", fitted.settings.discount


def recall(scores: Float32Array, shows: Int64Array) -> float:
    """The share of photos, rows of float32 [n, m], whose own text is among the first five; ties count against it."""
    own = scores[np.arange(len(shows)), shows]
    return float(np.mean((scores >= own[:, None]).sum(axis=1) <= FIRST))


def precision(scores: Float32Array, shows: Int64Array) -> float:
    """The share of right photos among the first five of each text, a row of float32 [m, n]; mean over texts."""
    first = np.argsort(-scores, axis=1, kind="stable")[:, :FIRST]
    return float(np.mean(shows[first] == np.arange(len(scores))[:, None]))


def _chance(shop: Shop) -> Iterator[tuple[str, float]]:
    shares = np.bincount(shop.shows["test"], minlength=len(shop.texts)) / len(shop.shows["test"])
    yield f"recall@{FIRST}_image_text__chance", FIRST / len(shop.texts)
    yield f"precision@{FIRST}_text_image__chance", float(shares.mean())


def _shop(folder: Path) -> Shop:
    products = list(csv.DictReader((folder / "classes.csv").read_text("utf-8").splitlines()))
    descriptions = [
        (folder / product["Product Description Path (str)"].lstrip("/")).read_text("utf-8").strip()
        for product in products
    ]
    texts = [f"{_path(product)}. {said}" for product, said in zip(products, descriptions, strict=True)]
    listed = {part: [line.split(",") for line in (folder / f"{part}.txt").read_text().splitlines()] for part in PARTS}
    photos = {part: [folder / row[0].strip() for row in rows] for part, rows in listed.items()}
    read = TextEncoder(TextEncoderConfig(max_length=256))
    return Shop(
        read.encode(texts),
        read.encode(descriptions),
        {part: _looked_at(paths, "all") for part, paths in photos.items()},
        {part: _looked_at(paths, "last") for part, paths in photos.items()},
        {part: np.array([int(row[1]) for row in rows]) for part, rows in listed.items()},
    )


def _path(product: dict[str, str]) -> str:
    """Fruit > Apple > Golden Delicious"""
    broad = product["Product Description Path (str)"].split("/")[2]
    names = (broad, product["Coarse Class Name (str)"], product["Class Name (str)"])
    return " > ".join(name.replace("-", " ") for name in names)


def _looked_at(photos: list[Path], layers: str) -> Float32Array:
    """Encoded once: a second run finds them in the temporary folder."""
    cache = Path(gettempdir()) / "endcap-bench-multimodal"
    encoder = ImageEncoder(ImageEncoderConfig.model_validate({"layers": layers}))
    started, cached = time.monotonic(), CachedEncoder(encoder, cache)
    vectors = cached.encode(photos)
    told = f"{cached.encoded} of {len(photos)} photos encoded in {time.monotonic() - started:.0f} s"
    print(f"{time.strftime('%H:%M:%S')} {layers}: {told}", flush=True)
    return vectors


def _folder(data: Path | None) -> Path:
    """`data` itself, or the folder in it; as with other benchmarks, either may be named."""
    for folder in (data, data / NAME) if data else ():
        if (folder / "classes.csv").is_file():
            return folder
    raise CallerError(
        f"There are no photos in {data}." if data else "No folder of the data was named.",
        where="DATA",
        next_step=f"Name the folder that holds {NAME}: make bench NAME=multimodal DATA=<folder>",
    )
