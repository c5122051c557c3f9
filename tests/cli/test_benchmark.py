"""`endcap benchmark` prints the figures, and writes them where it is told."""

import json


def test_benchmark_measures_a_folder(endcap, tmp_path):
    lines = [f"u{user} " + " ".join(str((user + step) % 20) for step in range(6)) for user in range(120)]
    (tmp_path / "sequences.txt").write_text("\n".join(lines))
    written = tmp_path / "found.md"
    done = endcap("benchmark", str(tmp_path), "--json", "--markdown", str(written))
    said = json.loads(done.stdout)
    assert said["figures"]["ndcg@10"] > 0.9
    assert said["seconds"]["fit sources on the training part"] > 0
    assert "### discovery (120 queries)" in written.read_text()
