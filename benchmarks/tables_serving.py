"""The tables of serving and of durability, made from the recorded figures of `bench_serving` and `bench_durability`."""

from __future__ import annotations

from benchmarks.tables import RESULTS, Figures, figures, table, words

SIZES = {"12k": "12 thousand (Amazon Beauty)", "100k": "100 thousand", "1m": "1 million"}
SERVING, DURABILITY = "serving", "durability"
WITHOUT = "–"


def serving_figures() -> Figures:
    """Of all sizes, whether they were recorded together or one by one."""
    found: Figures = {}
    for name in (SERVING, *(f"{SERVING}-{size}" for size in (*SIZES, "drift"))):
        if (RESULTS / f"{name}.json").exists():
            found |= figures(name)
    return found


def measured(found: Figures) -> list[str]:
    """The sizes that figures tell of, smallest first."""
    return [size for size in SIZES if f"p50_ms_{size}" in found]


def serving() -> str:
    """A row a size: ours and the plain ALS service; and the picture of it."""
    found, rows = serving_figures(), []
    if not measured(found):
        return _not_yet(SERVING)
    for size in measured(found):
        ours = _of(found, size, "ready_s", "p50_ms", "p99_ms", "rps_core@_8", "rss_mb")
        rows.append((f"**{SIZES[size]}**", "Endcap", *ours))
        if f"als_p50_ms_{size}" in found:
            theirs = _of(found, size, "als_ready_s", "als_p50_ms", "als_p99_ms", "als_rps_core@_8", "als_rss_mb")
            rows.append(("", "plain ALS service", *theirs))
    head = ("Items", "", "Ready, s", "p50, ms", "p99, ms", "Answers a second and core, 8 clients", "Memory, MB")
    return f"{table(head, rows)}\n![Latency by catalogue size](images/{SERVING}.svg)\n"


def under_load() -> str:
    """A row a size and a number of clients; and one where one request in ten is an event."""
    found, rows = serving_figures(), []
    if not measured(found):
        return _not_yet(SERVING)
    for size in measured(found):
        for clients, end in (("1", ""), ("8", "@_8"), ("32", "@_32")):
            names = (
                *(f"{name}{end}" for name in ("p50_ms", "p95_ms", "p99_ms")),
                f"rps@_{clients}",
                f"failed@_{clients}",
                f"ratio_als@{end.lstrip('@')}",
            )
            rows.append((SIZES[size] if clients == "1" else "", clients, *_of(found, size, *names)))
        names = ("mixed_p50_ms", "mixed_p95_ms", "mixed_p99_ms", "mixed_rps", "mixed_failed")
        rows.append(("", "8, a tenth events", *_of(found, size, *names), WITHOUT))
    head = ("Items", "Clients", "p50, ms", "p95, ms", "p99, ms", "Answers a second", "Failed")
    return table((*head, "Home pages: p50 over the plain service's"), rows)


def stages() -> str:
    """Where the time of an answer goes, one client: a row a stage."""
    found = serving_figures()
    sizes, prefix = measured(found), "stage_ms_"
    names = [name.removeprefix(prefix) for name in found if name.startswith(prefix)]
    stages_of = list(dict.fromkeys(name.rpartition("_")[0] for name in names if name.rpartition("_")[2] in sizes))
    if not stages_of:
        return _not_yet(SERVING)
    rows = [(words(stage), *(_amount(found.get(f"{prefix}{stage}_{size}")) for size in sizes)) for stage in stages_of]
    return table(("Mean milliseconds", *(SIZES[size] for size in sizes)), rows)


def durability() -> str:
    if not (RESULTS / f"{DURABILITY}.json").exists():
        return _not_yet(DURABILITY)
    found, rows = figures(DURABILITY), []
    for said, end in (("kill -9 of the server", ""), ("of Redis", "_redis"), ("of Postgres", "_postgres")):
        if f"kills{end}" in found:
            names = ("kills", "acknowledged", "sent_again", "lost", "duplicated", "torn", "ready_again_s")
            rows.append((said, *(_amount(found[f"{name}{end}"]) for name in names)))
    head = ("", "Times", "Events acknowledged", "Sent again", "Lost", "Duplicated", "Torn releases", "Ready again, s")
    return table(head, rows)


def writing() -> str:
    """How fast events are recorded, and what changing the release under load costs, in sentences."""
    if not (RESULTS / f"{DURABILITY}.json").exists():
        return _not_yet(DURABILITY)
    found = figures(DURABILITY)
    return (
        f"- {found['events_per_s_batched']:,.0f} events a second over HTTP in batches of 500, "
        f"{found['events_per_s_single']:,.0f} one by one from 32\n  clients, each on disk before its answer;"
        f" `endcap ingest` records {found['rows_per_s_ingested']:,.0f} rows a second of clean Parquet.\n"
        f"- {found['swaps']:,.0f} releases published in turn under eight clients: of {found['swap_answers']:,.0f}"
        f" answers {found['swap_failed']:,.0f} failed, {found['swap_mixed']:,.0f} mixed\n  two releases; median"
        f" {found['swap_p50_ms']:.1f} ms (p99 {found['swap_p99_ms']:.1f}), without swaps"
        f" {found['steady_p50_ms']:.1f} ms (p99 {found['steady_p99_ms']:.1f}).\n"
    )


def live() -> str:
    """For the README, in sentences."""
    found = serving_figures()
    sizes = [size for size in ("100k", "1m") if size in measured(found)]
    if not sizes:
        return _not_yet(SERVING)
    told = "; ".join(
        f"from {SIZES[size]} items in {found[f'p50_ms_{size}']:.1f} ms (p99 {found[f'p99_ms_{size}']:.1f})"
        for size in sizes
    )
    return (
        f"- **Measured as a service.** One client and one core, over HTTP: answers\n  {told}.{_shows(found, sizes)}\n"
        "  ([how](docs/benchmarks.md#serving))\n"
    )


def _shows(found: Figures, sizes: list[str]) -> str:
    """What of the rest held at every size."""
    said = ""
    if all(found.get(f"effect_answers_{size}") == 1 for size in sizes):
        said += "\n  What a shopper just did shows in the very next answer."
    if (RESULTS / f"{DURABILITY}.json").exists():
        broken = figures(DURABILITY)
        if not any(value for name, value in broken.items() if name.startswith(("lost", "duplicated", "torn", "stale"))):
            kills = sum(value for name, value in broken.items() if name.startswith("kills"))
            said += f"\n  Killed {kills:.0f} times under load, it lost and doubled no event that it had acknowledged."
    return said


def _of(found: Figures, size: str, *names: str) -> list[str]:
    """Cells of a size; `@` in a name stands where the size goes, at the end where there is none."""
    placed = (name.replace("@", f"_{size}") if "@" in name else f"{name}_{size}" for name in names)
    return [_amount(found.get(name)) for name in placed]


def _amount(value: float | None) -> str:
    if value is None:
        return WITHOUT
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _not_yet(name: str) -> str:
    return f"Not recorded yet: `make bench NAME={name}`.\n"
