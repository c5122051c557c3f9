"""The tables of what pretrained models do: encoders, pictures beside texts, tuning."""

from __future__ import annotations

from benchmarks.tables import Figures, figures, table

WAYS = {
    "float32": "torch, float32",
    "onnx_float32": "ONNX, float32",
    "int8": "ONNX, int8",
    "bfloat16": "torch, bfloat16",
}
METHODS = {
    "full": "full",
    "lora": "LoRA, rank 16",
    "adalora": "AdaLoRA",
    "adapter": "bottleneck adapters",
    "ia3": "IA3",
    "prefix": "prefix",
    "frozen": "frozen, a head alone",
}
INTEREST = {
    "frozen": "MiniLM as it comes",
    "full": "tuned on pairs of titles, full",
    "lora": "tuned on pairs of titles, LoRA",
    "cross": "cross-encoder, begun from the full one",
    "best": "the full one and the cross-encoder together",
}
KNOWN = {"1": "1", "2-3": "2 to 3", "4-7": "4 to 7", "8+": "8 and more", "": "all that are known"}


def encoders() -> str:
    """Speed and nearness of the text encoder's forms."""
    found = figures("encoders")
    rows = []
    for way, said in WAYS.items():
        overlap = found.get(f"{way}_overlap@10")
        rows.append(
            (said, _speed(found, f"{way}_one"), _speed(found, f"{way}_many"), f"{overlap:.3f}" if overlap else "")
        )
    head = ("MiniLM, one thread", "one text at a time, texts/s", "many, texts/s", "neighbours kept")
    return (
        table(head, rows)
        + f"\nBeauty's {found['titles']:,.0f} titles: {found['encode_cold_s']:.0f} s the first time (two threads), "
        f"{found['encode_cached_s']:.1f} s from the cache.\n"
    )


def multimodal() -> str:
    """Photos against the texts of 81 products."""
    found = figures("multimodal")
    rows = [
        ("a photo finds its product (recall@5)", "recall@5_image_text"),
        ("a product finds its photos (precision@5)", "precision@5_text_image"),
    ]
    made = [
        (said, _spread(found, name), f"{found[f'{name}__plain']:.3f}", f"{found[f'{name}__chance']:.3f}")
        for said, name in rows
    ]
    unseen = "recall@5_image_text_unseen"
    made.append(
        (
            "the same for products that training had no photo of (recall@5)",
            _spread(found, unseen),
            "",
            f"{_chance(found)}",
        )
    )
    return table(("", "Endcap", "Linear projection", "By chance"), made)


def models() -> str:
    """What pretrained models do for a shop, in a sentence."""
    content, whole = figures("finetune-content"), figures("judge-beauty")
    photos, served = figures("multimodal"), figures("encoders")
    tuned, plain = content["ndcg@10_content_tuned"], content["ndcg@10_content_frozen"]
    return (
        "- **Pretrained models, tuned to the shop.** By titles alone, MiniLM tuned on Beauty's own log ranks each\n"
        f"  shopper's last purchase at an NDCG@10 of {tuned:.4f} ({plain:.4f} as it comes), and the whole product\n"
        f"  with it at {whole['ndcg@10_tuned_content']:.4f} ({whole['ndcg@10']:.4f}; gain "
        f"{_gain(whole, 'gain@10_tuned_content')}, 6,000 shoppers). A photo\n"
        f"  finds its product among the first five of 81 in {photos['recall@5_image_text']:.0%} of cases; queries are "
        f"encoded\n  {served['int8_speedup']:.1f} times as fast as by torch.\n"
    )


def methods() -> str:
    """Every method of tuning on the same task."""
    found = figures("finetune-intents")
    rows = [
        (
            said,
            _spread(found, f"f1_{method}"),
            f"{found[f'share_{method}']:.2f} %",
            f"{found[f'seconds_{method}']:.0f}",
            f"{found[f'memory_mb_{method}'] / 1000:.1f}",
        )
        for method, said in METHODS.items()
    ]
    return table(("Method", "Macro-F1", "Parameters that learn", "Seconds", "Memory, GB"), rows)


def texts() -> str:
    """Reviews and news."""
    reviews, finance = figures("finetune-reviews"), figures("finetune-finance")
    rows = [
        ("Chinese reviews, accuracy", "multilingual-e5-small, LoRA", _spread(reviews, "acc_reviews_zh")),
        ("", "the same as it comes, a linear model", f"{reviews['acc_reviews_zh_frozen']:.3f}"),
        ("", "TF-IDF of characters, a linear model", f"{reviews['acc_reviews_zh_tfidf']:.3f}"),
        ("Financial news, macro-F1", "MiniLM, full", _spread(finance, "f1_finance")),
    ]
    return table(("", "Model", "Test"), rows)


def interest() -> str:
    """Will a shopper take this one?"""
    found = figures("finetune-interest")
    rows = [
        (said, _spread(found, f"auc_interest_{name}"), _seconds(found, f"seconds_interest_{name}"))
        for name, said in INTEREST.items()
    ]
    return table(("Model", "AUC", "Seconds of tuning"), rows)


def content() -> str:
    """Titles as content vectors, as they come and tuned."""
    found = figures("finetune-content")
    rows = [
        ("The usual test, NDCG@10", "ndcg@10_content"),
        ("Items kept out of training, Recall@10", "recall@10_cold"),
    ]
    return table(
        ("By titles alone", "MiniLM as it comes", "Tuned", ""),
        [
            (
                said,
                f"{found[f'{name}_frozen']:.4f}",
                _spread(found, f"{name}_tuned", 4),
                f"{found[f'{name}_tuned'] / found[f'{name}_frozen']:.2f} times",
            )
            for said, name in rows
        ],
    )


def judge() -> str:
    """The ranker with and without a cross-encoder, by how much is known of a shopper."""
    found = figures("judge-beauty")
    rows = []
    for bucket, said in KNOWN.items():
        end = f"_{bucket}" if bucket else ""
        inside = _gain(found, f"gain@10{end}")
        rows.append(
            (
                f"{said} ({found[f'queries{end}']:,.0f})",
                f"{found[f'ndcg@10{end}']:.4f}",
                f"{found[f'ndcg@10{end}_with']:.4f}",
                inside,
                f"{found[f'ndcg@10{end}_alone']:.4f}",
            )
        )
    head = (
        "Acts that are known (shoppers)",
        "Ranker",
        "With the cross-encoder",
        "Gain, paired [95 %]",
        "In its order alone",
    )
    decided = "It stays in the release" if found["stays"] else "It is left out of the release"
    return (
        table(head, rows) + f"\n{decided}, as validation decided (gain {found['gain@10_validation']:+.4f} there). "
        f"With the tuned bi-encoder's content vectors, and without a cross-encoder: "
        f"{found['ndcg@10_tuned_content']:.4f}, gain {_gain(found, 'gain@10_tuned_content')}.\n"
    )


def _gain(found: Figures, name: str) -> str:
    return f"{found[name]:+.4f} [{found[f'{name}_lo']:+.4f}, {found[f'{name}_hi']:+.4f}]"


def _seconds(found: Figures, name: str) -> str:
    return f"{found[name]:,.0f}" if name in found else ""


def _speed(found: Figures, name: str) -> str:
    value = found.get(f"texts_per_s_{name}")
    return f"{value:.0f}" if value else ""


def _spread(found: Figures, name: str, digits: int = 3) -> str:
    """With the standard deviation over seeds, where there are several."""
    spread = f" ± {found[f'{name}_sd']:.{digits}f}" if f"{name}_sd" in found else ""
    return f"{found[name]:.{digits}f}{spread}"


def _chance(found: Figures) -> str:
    return f"{found['recall@5_image_text__chance']:.3f}"
