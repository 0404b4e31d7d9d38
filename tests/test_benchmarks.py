"""The benchmarks run; what they measure is not asserted, since machines are noisy."""

import subprocess
import sys
from pathlib import Path


def test_every_benchmark_runs_on_a_small_scale(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("bulk", "single posts", "bulk, rated", "31 days by", "a day by minute", "costs of 31"):
        assert what in done.stdout
