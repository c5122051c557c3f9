"""The tables of what pretrained models do: encoders, and pictures beside texts."""

from __future__ import annotations

from benchmarks.tables import Figures, figures, table

WAYS = {
    "float32": "torch, float32",
    "onnx_float32": "ONNX, float32",
    "int8": "ONNX, int8",
    "bfloat16": "torch, bfloat16",
}


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


def _speed(found: Figures, name: str) -> str:
    value = found.get(f"texts_per_s_{name}")
    return f"{value:.0f}" if value else ""


def _spread(found: Figures, name: str) -> str:
    return f"{found[name]:.3f} ± {found[f'{name}_sd']:.3f}"


def _chance(found: Figures) -> str:
    return f"{found['recall@5_image_text__chance']:.3f}"
