"""Tests of the parts that need no peer: `python3 -m unittest discover benches/peers`."""

import dataclasses
import json
import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path

import environment
from contenders import ContenderError, Launch, Refused, Taskweave, Worker
from figures import Spread, milliseconds, ratios, spread
from results import Ours, Tried, WorkResult, fastest
from rounds import Plan, WorkRun
from table import failures, memory_table, speed_table
from workers.nets import NETS, share
from works import Peer, Setting, Work, all_works

# A peer that says what its job tells it to, without any framework.
FAKE_WORKER = """
import sys
from workers import protocol
from workers.protocol import Prepared

def prepare(job):
    if job["options"].get("raises"):
        raise ImportError("no such framework")
    if job["options"].get("crashes"):
        print("out of luck", file=sys.stderr)
        sys.exit(7)
    print("a framework's own words")
    parameters = 1 if job["options"].get("other_work") else 5_800_010
    value = float("nan") if job["options"].get("nan") else 0.5
    return Prepared("Fake 1.0", lambda: value, parameters)

protocol.serve(prepare)
"""

# A program that knows `bench step` and refuses `bench infer`.
FAKE_TASKWEAVE = f"""#!{sys.executable}
import json, sys
if sys.argv[2] == "infer":
    print("error: unrecognized subcommand 'infer'", file=sys.stderr)
    sys.exit(2)
if sys.argv[2] == "gemm":
    print("error: cannot", file=sys.stderr)
    sys.exit(1)
print(json.dumps({{"name": "step", "median_ms": 2.0, "share_of_peak": 0.5, "isa": "avx2"}}))
"""


def tried(setting: str, trial: float, rounds: list[float], *, tuned: bool = False) -> Tried:
    return Tried(
        peer="PyTorch",
        setting=setting,
        tuned=tuned,
        trial_ms=[trial],
        rounds_ms=[[time] for time in rounds],
        prepared_bytes=100_000_000,
        peak_bytes=2_000_000_000,
    )


def ours(medians: list[float]) -> Ours:
    lines = [{"median_ms": median, "share_of_peak": 0.9, "isa": "avx512"} for median in medians]
    return Ours(rounds=lines, peak_bytes=[500_000_000] * len(lines))


class Figures(unittest.TestCase):
    def test_spread_is_median_and_extremes(self) -> None:
        self.assertEqual(spread([3.0, 1.0, 2.0, 9.0]), Spread(2.5, 1.0, 9.0))

    def test_ratios_go_round_by_round(self) -> None:
        # The ratio of the medians would be 2; that of the rounds is 3.
        self.assertEqual(ratios([3.0, 40.0, 4.0], [1.0, 10.0, 2.0]), Spread(3.0, 2.0, 4.0))

    def test_ratios_of_unequal_rounds_are_refused(self) -> None:
        with self.assertRaises(ValueError):
            ratios([1.0, 2.0], [1.0])

    def test_milliseconds_keep_three_figures(self) -> None:
        self.assertEqual(
            [milliseconds(value) for value in (0.267, 56.44, 983.6, 2_119.7)],
            ["0.27", "56.4", "984", "2,120"],
        )


class Choice(unittest.TestCase):
    def test_fastest_goes_by_its_trial_and_leaves_out_failures(self) -> None:
        failed = tried("failed", 0.1, [])
        failed.failure = "crashed"
        quick, slow = tried("quick", 1.0, []), tried("slow", 2.0, [])
        self.assertIs(fastest([slow, failed, quick]), quick)
        self.assertIsNone(fastest([failed]))


class Tables(unittest.TestCase):
    def test_a_row_for_each_peer_and_tuning(self) -> None:
        work = WorkResult(
            "mlp-step",
            "mlp step",
            ours([50.0, 40.0, 60.0]),
            [
                tried("slow", 200.0, []),
                tried("eager", 100.0, [100.0, 90.0, 110.0]),
                tried("eager", 80.0, [80.0, 80.0, 80.0], tuned=True),
            ],
        )
        self.assertEqual(
            speed_table([work]).splitlines()[2:],
            [
                "| mlp step | 50.0 (40.0 to 60.0) | 0.90 | PyTorch, eager | 100 (90.0 to 110) "
                "| **2.00×** (1.83 to 2.25) |",
                "| mlp step | 50.0 (40.0 to 60.0) | 0.90 | PyTorch, eager, malloc tuned "
                "| 80.0 (80.0 to 80.0) | **1.60×** (1.33 to 2.00) |",
            ],
        )
        self.assertEqual(
            memory_table([work]).splitlines()[2],
            "| mlp step | 500 MB | PyTorch, eager | 2,000 MB | 100 MB | 0.25× |",
        )
        self.assertEqual(failures([work]), [])

    def test_failures_are_rows(self) -> None:
        peer = tried("eager", 1.0, [])
        peer.failure = "ImportError: no | such module"
        work = WorkResult("a", "work a", ours([50.0]), [peer])
        broken = WorkResult("b", "work b", Ours(failure="exit code 1: cannot"))
        lines = speed_table([work, broken]).splitlines()[2:]
        self.assertIn("failed: ImportError: no \\| such module", lines[0])
        self.assertIn("| work b | failed: exit code 1: cannot |", lines[1])
        self.assertEqual(len(memory_table([work, broken]).splitlines()), 2)
        self.assertEqual(len(failures([work, broken])), 1)


class Nets(unittest.TestCase):
    def test_parameters_are_those_of_the_experiments(self) -> None:
        self.assertEqual(NETS["mlp"].parameters(), 5_800_010)
        self.assertEqual(NETS["convnet"].parameters(), 11_209_194)

    def test_share_is_what_lies_at_or_above_the_percentile(self) -> None:
        self.assertEqual([share(count, 90) for count in (1, 10, 11, 1_000)], [1, 1, 2, 100])
        # As `taskweave summary` has it for a share of a fifth.
        self.assertEqual(NETS["convnet"].owned(80), 2_241_845)


class Works(unittest.TestCase):
    def test_keys_are_unique_and_jobs_travel_as_json(self) -> None:
        for batch in (1, 16, 512, 1_024):
            works = all_works(batch)
            self.assertEqual(len({work.key for work in works}), len(works))
            for work in works:
                json.dumps(work.job)

    def test_settings_of_a_peer_differ(self) -> None:
        for work in all_works(512):
            for peer in work.peers:
                self.assertEqual(len({one.name for one in peer.settings}), len(peer.settings))
                options = [json.dumps(one.options, sort_keys=True) for one in peer.settings]
                self.assertEqual(len(set(options)), len(options), f"{work.key} {peer.name}")


class Processes(unittest.TestCase):
    """Real processes, with a worker and a program that are made up."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "fake_worker.py").write_text(FAKE_WORKER)
        binary = self.folder / "taskweave"
        binary.write_text(FAKE_TASKWEAVE)
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
        variables = os.environ | {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        launch = Launch(Path(sys.executable), "fake_worker", variables, 60)
        self.plan = Plan(
            Taskweave(binary, 2),
            {("fake_worker", tuned): launch for tuned in (False, True)},
            rounds=3,
            repetitions=2,
        )

    def work(self, key: str, *options: dict[str, bool]) -> Work:
        settings = tuple(Setting(str(one), one) for one in options)
        work = next(work for work in all_works(16) if work.key == key)
        return dataclasses.replace(work, peers=(Peer("Fake", "fake_worker", settings),))

    def test_best_setting_goes_through_the_rounds_and_failures_are_kept(self) -> None:
        broken = ({"raises": True}, {"crashes": True}, {"nan": True}, {"other_work": True})
        run = WorkRun(self.work("mlp-step", {}, *broken), self.plan)
        result = run.run()
        self.assertEqual(run.alive, {})
        self.assertEqual(result.ours.medians(), [2.0] * 3)
        good, *failed, tuned = result.tried
        self.assertIsNone(good.failure)
        self.assertEqual([len(times) for times in good.rounds_ms], [2, 2, 2])
        self.assertTrue(tuned.tuned)
        self.assertEqual(len(tuned.rounds_ms), 3)
        self.assertEqual(failed[0].failure, "ImportError: no such framework")
        self.assertEqual(failed[1].failure, "ended with exit code 7: out of luck")
        self.assertIn("answer is nan", failed[2].failure or "")
        self.assertIn("not the same work: parameters 1, not 5800010", failed[3].failure or "")
        self.assertEqual([one.rounds_ms for one in failed], [[]] * 4)
        self.assertEqual(result.rows(), [good, tuned])

    def test_refused_work_is_left_out(self) -> None:
        with self.assertRaisesRegex(Refused, "unrecognized subcommand 'infer'"):
            WorkRun(self.work("mlp-infer-1", {}), self.plan).run()

    def test_failing_program_is_a_row(self) -> None:
        result = WorkRun(self.work("gemm-1024", {}), self.plan).run()
        self.assertEqual(result.ours.failure, "exit code 1: error: cannot")
        self.assertEqual(result.tried, [])

    def test_idle_worker_is_stopped_and_closing_ends_it(self) -> None:
        job: dict[str, dict[str, bool]] = {"options": {}}
        worker = Worker(self.plan.launches["fake_worker", False], job)
        pid = worker._process.pid
        status = Path(f"/proc/{pid}/status")
        if status.exists():
            self.assertIn("State:\tT", status.read_text())
        self.assertEqual(len(worker.measure(4)["times_ms"]), 4)
        worker.close()
        with self.assertRaises(ProcessLookupError):
            os.kill(pid, 0)

    def test_missing_answer_is_an_error(self) -> None:
        launch = dataclasses.replace(self.plan.launches["fake_worker", False], timeout=0)
        with self.assertRaisesRegex(ContenderError, "no answer within 0 s"):
            Worker(launch, {"options": {}})


class Environment(unittest.TestCase):
    def test_threads_are_set_and_malloc_is_tuned_on_demand(self) -> None:
        outer = {"PATH": "/bin", "PYTHONPATH": "elsewhere", "GLIBC_TUNABLES": "x=1"}
        plain = environment.worker_environment(outer, 3, Path("cache"), tuned=False)
        tuned = environment.worker_environment(outer, 3, Path("cache"), tuned=True)
        self.assertEqual((plain["PATH"], plain["OMP_NUM_THREADS"]), ("/bin", "3"))
        self.assertNotIn("PYTHONPATH", plain)
        self.assertNotIn("GLIBC_TUNABLES", plain)
        self.assertIn("glibc.malloc.hugetlb=1", tuned["GLIBC_TUNABLES"])


if __name__ == "__main__":
    unittest.main()
