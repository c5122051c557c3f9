"""Draws the figures of `benchmarks/results/demo.json` as `docs/images/demo.svg`: python -m benchmarks.chart"""

from __future__ import annotations

import json
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
TASKS = {"all": "Next basket", "discovery": "New to the household", "cart": "Rest of the basket"}
ROW, LABEL, WIDTH, SHOWN = 22, 130, 170, 6
PANEL = LABEL + WIDTH + 60
OURS, OTHER = "#d9480f", "#adb5bd"


def main() -> None:
    figures = json.loads((HERE / "results" / "demo.json").read_text())["figures"]
    panels = [_panel(task, title, figures, place) for place, (task, title) in enumerate(TASKS.items())]
    height = 60 + ROW * (SHOWN + 1)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PANEL * len(TASKS)} {height}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(panels)}</svg>\n"
    )
    (HERE.parent / "docs" / "images" / "demo.svg").write_text(svg, encoding="utf-8")


def _panel(task: str, title: str, figures: dict[str, float], place: int) -> str:
    """Ours with its interval, and the best baselines."""
    prefix = f"ndcg@10_{task}__"
    others = sorted(((value, key.removeprefix(prefix)) for key, value in figures.items() if key.startswith(prefix)))
    rows = [(figures[f"ndcg@10_{task}"], "endcap"), *others[::-1][:SHOWN]]
    scale = WIDTH / max(figures[f"ndcg@10_{task}_hi"], *(value for value, _ in rows))
    left = place * PANEL
    parts = [f'<text x="{left + LABEL}" y="24" font-weight="bold">{title}, NDCG@10</text>']
    for row, (value, name) in enumerate(rows):
        y = 40 + row * ROW
        fill = OURS if name == "endcap" else OTHER
        parts.append(
            f'<text x="{left + LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name.replace("_", " "))}</text>'
            f'<rect x="{left + LABEL}" y="{y}" width="{value * scale:.1f}" height="{ROW - 6}" fill="{fill}"/>'
            f'<text x="{left + LABEL + value * scale + 14:.1f}" y="{y + 12}">{value:.4f}</text>'
        )
    low, high = (left + LABEL + figures[f"ndcg@10_{task}_{end}"] * scale for end in ("lo", "hi"))
    parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="48" y2="48" stroke="black" stroke-width="1.5"/>')
    return "".join(parts)


if __name__ == "__main__":
    main()
