"""The benchmarks run and tell what they measure rightly; what it is is not asserted, since machines are noisy."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.effort import QUICK
from benchmarks.load import Load, Page, run
from benchmarks.postgres import is_installed
from benchmarks.report import cells, markdown, verdict
from benchmarks.results import GROWTH, Result, Run, load, merge, save
from benchmarks.table import BENCHMARKS, M
from benchmarks.times import Times

STALL_S = 0.5
PAGE = "31 days by model"


def test_every_benchmark_runs_on_a_small_scale(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    names = {
        benchmark.name
        for benchmark in BENCHMARKS
        if not benchmark.name.endswith(GROWTH)
        and (benchmark.section != "compared" or is_installed())
        and (benchmark.section != "bulk" or any(f" {size:,} " in benchmark.name for size in QUICK.body_sizes))
    }
    assert {name for name in names if name not in told} == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected", "numbers"),
    [
        ("bulk, 5,000 events a body", "met", {"ours": 100_000, "reference": 250_000}),
        ("bulk, 5,000 events a body", "missed: 2.00 x off", {"ours": 50_000, "reference": 100_000}),
        ("bulk, 5,000 events a body", "missed: 1.25 x off against the reference", {"ours": 160_000, "reference": 5e5}),
        (PAGE, "met", {"ours": 10, "reference": 300, "spread": (10, 30), "events": 10 * M}),
        (PAGE, "missed: 1.50 x off", {"ours": 15, "reference": 300, "spread": (15, 30), "events": 10 * M}),
        (PAGE, "missed: p99 2.00 x off", {"ours": 5, "reference": 300, "spread": (5, 30), "events": 10 * M}),
        (PAGE, "", {"ours": 15, "reference": 300, "events": M}),
        ("mixed, 20 pages/s: errors", "met", {"ours": 0, "events": M}),
        ("mixed, 20 pages/s: errors", "missed: 3 too many", {"ours": 3, "events": M}),
        ("costs of 31 days ungrouped", "", {"ours": 15, "reference": 300, "events": M}),
    ],
)
def test_a_goal_is_met_or_missed_by_so_much(name: str, expected: str, numbers: dict[str, float]) -> None:
    assert verdict(Result(name=name, **numbers)) == expected  # type: ignore[arg-type]


def test_a_ratio_above_one_is_better_whichever_way_better_is() -> None:
    faster = cells(Result(name="single posts", ours=4_000, reference=2_000, events=M))
    shorter = cells(Result(name=PAGE, ours=4, reference=8, events=M))
    assert (faster[3], shorter[3]) == ("2.00", "2.00")


def test_results_join_those_of_earlier_runs_and_pages_show_their_growth(tmp_path: Path) -> None:
    small, large = (Result(name=PAGE, ours=ours, events=events) for ours, events in ((4.0, M), (6.0, 100 * M)))
    older = Result(name=PAGE, ours=5.0, events=M)
    runs = merge(load(tmp_path / "none"), Run(facts={"date": "one"}, results=(older, large)))
    runs = merge(runs, Run(facts={"date": "two"}, results=(small,)))
    save(tmp_path / "results.json", runs)
    assert load(tmp_path / "results.json") == runs
    assert [(run.facts["date"], run.results) for run in runs] == [("one", (large,)), ("two", (small,))]
    page = markdown(runs)
    assert f"| {PAGE}, growth | 6 ms | 4 ms | 0.67 | <= 1.5 x reference, at 100M events | met |" in page
    assert "- one: pages of 100M" in page
    assert "- two: pages of 1M" in page


@pytest.fixture
def stalling() -> Iterator[str]:
    """A server that answers at once, but for one answer in the midst that takes a while."""
    answered = iter(range(1_000_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if next(answered) == 10:
                time.sleep(STALL_S)
            self.send_response(404 if self.path == "/nothing" else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def load_of(url: str, path: str, every_s: float | None) -> Load:
    return Load(url=url, key="none", connections=1, seconds=1, pages=(Page("page", path),), every_s=every_s)


def test_what_waits_behind_a_slow_answer_counts_as_waiting(stalling: str) -> None:
    answers = run(load_of(stalling, "/", 0.01))
    # 100 were due in a second, and about 50 of them while the connection was busy with one.
    assert len(answers.ms["page"]) == 100
    assert sum(ms > STALL_S * 1000 / 5 for ms in answers.ms["page"]) > 20
    assert answers.failed == 0


def test_without_a_pace_only_the_slow_answer_is_slow(stalling: str) -> None:
    answers = run(load_of(stalling, "/", None))
    assert sum(ms > STALL_S * 1000 * 0.9 for ms in answers.ms["page"]) == 1
    assert answers.failed == 0


def test_a_bad_answer_is_a_failure_and_no_time(stalling: str) -> None:
    answers = run(load_of(stalling, "/nothing", 0.1))
    assert (answers.ms, answers.failed) == ({}, 10)
    assert "404" in answers.failures[0]


def test_p99_is_what_99_of_100_stay_at_or_below() -> None:
    times = Times([float(number) for number in range(1, 1001)])
    assert (times.p50, times.p99) == (500.5, 990)
