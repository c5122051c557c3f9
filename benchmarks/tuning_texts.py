"""The parts of the tuning benchmark that sort texts: shop intents, financial news, Chinese reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.tuning import figures, say, tuned
from endcap.core.determinism import rng

# chosen on the validation part, from three rates a method, by two passes over a third of the training part
RATES = {
    "full": 2e-4,
    "frozen": 3e-2,
    "lora": 4e-3,
    "adalora": 6e-3,
    "prefix": 2e-2,
    "ia3": 1e-2,
    "adapter": 4e-3,
}
INTENT_EPOCHS = 2
REVIEWS = {"train": 2000, "valid": 1000, "test": 5000}


def intents(data: Path, seeds: int) -> dict[str, float]:
    """Macro-F1, the share that learns, seconds and memory of every method."""
    parts = {"train": "train", "validation": "valid", "test": "test"}
    frame = pl.concat(
        [
            pl.read_csv(data / "support-intents" / f"{name}.csv", infer_schema=False).select(
                text="utterance", label="intent", part=pl.lit(part)
            )
            for name, part in parts.items()
        ]
    )
    found: dict[str, float] = {}
    for method, rate in RATES.items():
        told = [
            tuned(frame, _settings(method, lr=rate, epochs=INTENT_EPOCHS, seed=seed, max_length=32))
            for seed in range(seeds)
        ]
        found |= figures(f"f1_{method}", [one.test["f1_macro"] for one in told])
        found |= figures(f"seconds_{method}", [one.seconds for one in told])
        found[f"share_{method}"] = 100 * told[0].share
        found[f"memory_mb_{method}"] = max(one.memory_mb for one in told)
        say(f"{method} {found[f'f1_{method}']:.4f}")
    return found


def finance(data: Path, seeds: int) -> dict[str, float]:
    """Macro-F1 of three classes."""
    lines = (data / "finance-phrasebank" / "Sentences_50Agree.txt").read_text("latin-1").splitlines()
    rows = dict.fromkeys(tuple(line.rsplit("@", 1)) for line in lines if "@" in line)
    frame = pl.DataFrame(list(rows), schema=["text", "label"], orient="row")
    told = [tuned(frame, _settings("full", lr=1e-4, epochs=4, seed=seed, max_length=64)) for seed in range(seeds)]
    return figures("f1_finance", [one.test["f1_macro"] for one in told]) | figures(
        "seconds_finance", [one.seconds for one in told]
    )


def reviews(data: Path, seeds: int) -> dict[str, float]:
    """Accuracy of positive or negative, beside what comes without tuning."""
    frame = _reviews(data)
    settings = _settings("lora", lr=5e-4, epochs=4, seed=0, max_length=128)
    settings |= {"base": {"name": "multilingual-e5-small", "max_length": 128}}
    told = [tuned(frame, settings | {"train": settings["train"] | {"seed": seed}}) for seed in range(seeds)]
    found = figures("acc_reviews_zh", [one.test["accuracy"] for one in told])
    found |= figures("seconds_reviews_zh", [one.seconds for one in told])
    from endcap.encoders.text import TextEncoder, TextEncoderConfig

    encoder = TextEncoder(TextEncoderConfig(model="multilingual-e5-small", max_length=128))
    parts = {part: frame.filter(pl.col("part") == part) for part in REVIEWS}
    vectors = {part: encoder.encode(rows["text"].to_list()) for part, rows in parts.items()}
    found["acc_reviews_zh_frozen"] = _linear(vectors, parts)
    found["acc_reviews_zh_tfidf"] = _linear(_characters(parts), parts)
    return found


def _settings(method: str, *, lr: float, epochs: int, seed: int, max_length: int) -> dict[str, Any]:
    train = {"lr": lr, "epochs": epochs, "patience": epochs, "seed": seed, "batch_size": 32}
    found: dict[str, Any] = {"method": {"kind": method}, "base": {"max_length": max_length}, "train": train}
    return found


def _reviews(data: Path) -> pl.DataFrame:
    """So many of each part, by lot, the same for every seed."""
    whole = pl.read_csv(data / "reviews-zh" / "online_shopping_10_cats.csv.gz", infer_schema=False).select(
        text=pl.col("review").str.strip_chars(), label="label"
    )
    sound = whole.filter(pl.col("text").fill_null("") != "").unique("text", maintain_order=True)
    order = rng(0, "reviews").permutation(sound.height)[: sum(REVIEWS.values())]
    parts = np.repeat(list(REVIEWS), list(REVIEWS.values()))
    return sound[order.tolist()].with_columns(part=pl.Series(parts))


def _characters(parts: dict[str, pl.DataFrame]) -> dict[str, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    count = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True)
    fitted = count.fit(parts["train"]["text"].to_list())
    return {part: fitted.transform(rows["text"].to_list()) for part, rows in parts.items()}


def _linear(vectors: dict[str, Any], parts: dict[str, pl.DataFrame]) -> float:
    """Test accuracy of a logistic regression whose penalty the validation part chose."""
    from sklearn.linear_model import LogisticRegression

    labels = {part: rows["label"].to_numpy() for part, rows in parts.items()}
    models = [
        LogisticRegression(C=c, max_iter=2000).fit(vectors["train"], labels["train"])
        for c in (0.1, 1.0, 10.0, 100.0, 1000.0)
    ]
    best = max(models, key=lambda model: model.score(vectors["valid"], labels["valid"]))
    return float(best.score(vectors["test"], labels["test"]))
