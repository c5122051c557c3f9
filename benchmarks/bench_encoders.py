"""Text encoders: how long a catalogue takes, what int8 and bfloat16 buy, and what they cost.

`make bench NAME=encoders DATA=<folder>`, on the titles of Amazon Beauty. Runs that are compared take turns, on one text
at a time (`_one`) or on many (`_many`), and each figure is the median of `ROUNDS`.

    encode_cold_s, encode_cached_s      all titles by `CachedEncoder(TextEncoder())` in a process of its own, from its
                                        start to its end: an empty cache, then a full one; `_cpu_s`: of all its threads
    texts_per_s_<which>_one             by MiniLM on one thread and on two (`_2`), in float32 by torch and onnxruntime,
                                        and in int8
    int8_speedup, int8_speedup_2        int8's over torch's in float32, of the same round, on one thread and on two
    texts_per_s_<which>_many            on two threads; `e5`: multilingual-e5-small, `auto`: torch's best on this CPU
    int8_overlap@10, e5_int8_overlap@10, bfloat16_overlap@10
                                        the share of each title's ten nearest among 2,000 that float32 finds too
    int8_mb, e5_int8_mb                 of the exported folders
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.leave_one_out import folder_of
from endcap.core.errors import MissingExtraError
from endcap.core.protocols import Encoder
from endcap.data.datasets import amazon_folder
from endcap.encoders import e5
from endcap.encoders.onnx import OnnxTextEncoder
from endcap.encoders.onnx_export import MEASURED, export_text, overlap_at
from endcap.encoders.text import TextEncoder, TextEncoderConfig

ROUNDS = 9
ONE, MANY, MANY_E5 = 60, 600, 150  # texts in a round
CATALOGUE = """if True:
    import json, sys
    from pathlib import Path
    from endcap.encoders.cache import CachedEncoder
    from endcap.encoders.text import TextEncoder
    titles = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    cached = CachedEncoder(TextEncoder(), Path(sys.argv[2]))
    assert len(cached.encode(titles)) == len(titles)
    print(cached.encoded)
    """


def run(data: Path | None) -> dict[str, float]:
    titles = amazon_folder(folder_of(data, "beauty")).items["title"].to_list()
    random = np.random.default_rng(0)
    sample = [titles[place] for place in random.permutation(len(titles))]
    with TemporaryDirectory() as place:
        figures = {"titles": float(len(titles)), **_catalogue(titles, Path(place))}
        figures |= _minilm(sample, Path(place) / "minilm")
        try:
            figures |= _multilingual(sample, Path(place) / "e5")
        except MissingExtraError as error:
            print(f"without multilingual-e5-small: {error}")
    return figures


def _catalogue(titles: Sequence[str], folder: Path) -> dict[str, float]:
    """Twice the same process: all titles are new to the first, none to the second."""
    (folder / "titles.json").write_text(json.dumps(titles), encoding="utf-8")
    command = [sys.executable, "-c", CATALOGUE, str(folder / "titles.json"), str(folder / "cache")]
    figures = {}
    for name, expected in (("encode_cold_s", len(set(titles))), ("encode_cached_s", 0)):
        started, used = time.monotonic(), _children_s()
        ran = subprocess.run(command, check=True, capture_output=True, text=True)
        figures[name] = time.monotonic() - started
        figures[name.replace("_s", "_cpu_s")] = _children_s() - used
        assert int(ran.stdout) == expected
        _tell(f"{name} {figures[name]:.2f}")
    return figures


def _children_s() -> float:
    """Seconds that CPUs have spent on processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _minilm(sample: Sequence[str], folder: Path) -> dict[str, float]:
    exact, short = (TextEncoder(TextEncoderConfig(precision=precision)) for precision in ("float32", "bfloat16"))
    int8 = export_text(exact, folder / "int8", texts=sample)
    export_text(exact, folder / "float32", texts=sample, quantise=False)
    _tell(f"int8 overlap {int8.overlap:.4f}")
    figures = {
        "int8_overlap@10": int8.overlap,
        "int8_mb": int8.bytes / 1e6,
        "bfloat16_overlap@10": overlap_at(exact.encode(sample[:MEASURED]), short.encode(sample[:MEASURED])),
    }
    for threads, end in ((1, ""), (2, "_2")):
        torch.set_num_threads(threads)
        served = {name: OnnxTextEncoder(folder / name, threads) for name in ("float32", "int8")}
        rates = _rates(
            {"float32": exact, "onnx_float32": served["float32"], "int8": served["int8"]},
            lambda encoder: [encoder.encode([text]) for text in sample[:ONE]],
            ONE,
        )
        figures |= {f"texts_per_s_{name}_one{end}": float(np.median(found)) for name, found in rates.items()}
        figures[f"int8_speedup{end}"] = float(np.median(rates["int8"] / rates["float32"]))
    rates = _rates(
        {"float32": exact, "bfloat16": short, "int8": served["int8"]},
        lambda encoder: encoder.encode(sample[:MANY]),
        MANY,
    )
    return figures | {f"texts_per_s_{name}_many": float(np.median(found)) for name, found in rates.items()}


def _multilingual(sample: Sequence[str], folder: Path) -> dict[str, float]:
    encoder = TextEncoder(TextEncoderConfig(model=e5.MODEL))
    int8 = export_text(encoder, folder, texts=sample)
    _tell(f"multilingual-e5-small int8 overlap {int8.overlap:.4f}")
    rates = _rates(
        {"e5_auto": encoder, "e5_int8": OnnxTextEncoder(folder, 2)},
        lambda encoder: encoder.encode(sample[:MANY_E5]),
        MANY_E5,
    )
    figures = {"e5_int8_overlap@10": int8.overlap, "e5_int8_mb": int8.bytes / 1e6}
    return figures | {f"texts_per_s_{name}_many": float(np.median(found)) for name, found in rates.items()}


def _rates(
    encoders: dict[str, Encoder[str]], read: Callable[[Encoder[str]], object], texts: int
) -> dict[str, np.ndarray]:
    """Texts in a second of each encoder in each round; they take turns, and one round before the first warms up."""
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(ROUNDS + 1):
        for name, encoder in encoders.items():
            started = time.perf_counter()
            read(encoder)
            taken[name].append(time.perf_counter() - started)
    rates = {name: texts / np.array(seconds[1:]) for name, seconds in taken.items()}
    for name, found in rates.items():
        _tell(f"{name}: {np.median(found):.0f} texts a second ({found.min():.0f} to {found.max():.0f})")
    return rates


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
