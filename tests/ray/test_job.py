"""Jobs over a real local Ray: every row is answered once, whatever dies."""

import json
import os
import resource
import shlex
import signal
import subprocess
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import ray
from pagesift_ray.job import Job
from support import DYING_ENGINE, MODEL, PAGESIFT, JobTest, start_ray


def setUpModule() -> None:
    start_ray()


def tearDownModule() -> None:
    ray.shutdown()


def prompts(count: int, documents: int = 7) -> list[dict]:
    return [{"id": f"r{i}", "prompt": f"Document {i % documents}. Question {i}", "document": f"d{i % documents}"} for i in range(count)]


class Answers(JobTest):
    def test_two_workers_give_the_answers_of_one_process(self) -> None:
        rows = [{"id": word, "prompt": f"The {word}", "max_tokens": 6} for word in ["war", "sun", "sea", "king"]]
        file = self.write(rows)
        self.assertEqual(self.run_job(file, engine=PAGESIFT), 0)
        words = [*shlex.split(PAGESIFT), "generate", "--jsonl", str(file), "-m", str(MODEL), "--device", "cpu", "-t", "1", "-q"]
        single = subprocess.run(words, capture_output=True, text=True, check=True)
        wanted = {answer["id"]: answer["ids"] for answer in map(json.loads, single.stdout.splitlines())}
        self.assertEqual({answer["row"]: answer["ids"] for answer in self.answers()}, wanted)

    def test_rows_of_a_document_go_to_one_worker(self) -> None:
        self.assertEqual(self.run_job(self.write(prompts(60))), 0)
        workers: dict[str, set[int]] = {}
        for answer in self.answers():
            workers.setdefault(answer["document"], set()).add(answer["worker"])
        self.assertEqual([len(names) for names in workers.values()], [1] * 7)
        self.assertEqual(set.union(*workers.values()), {0, 1})

    def test_own_fields_and_statistics_are_in_the_output(self) -> None:
        self.run_job(self.write([{"id": 5, "prompt": "abc", "topic": "x"}]))
        [answer] = self.answers()
        self.assertEqual([answer["row"], answer["topic"], answer["text"], answer["new_tokens"]], ["5", "x", "cba", 2])
        self.assertNotIn("prompt", answer)

    def test_invalid_rows_are_refused_and_the_others_answered(self) -> None:
        file = self.write(["not json", {"id": "a", "prompt": 5}, {"id": "b", "prompt": "x"}, "[1]"])
        self.assertEqual(self.run_job(file), 0)
        finishes = {answer["row"]: answer["finish"] for answer in self.answers()}
        self.assertEqual(finishes, {f"{file}:1": "refused", "a": "refused", "b": "length", f"{file}:4": "refused"})

    def test_a_row_that_pagesift_refuses_is_named_by_its_id(self) -> None:
        self.run_job(self.write([{"id": "empty", "prompt": ""}]), engine=PAGESIFT)
        [answer] = self.answers()
        self.assertEqual(answer["finish"], "refused")
        self.assertTrue(answer["error"].startswith("empty"), answer["error"])

    def test_parquet_in_and_out(self) -> None:
        import pyarrow
        from pyarrow import parquet

        file = self.folder / "in.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(prompts(20)), file)
        self.assertEqual(self.run_job(file, "--format", "parquet"), 0)
        table = parquet.read_table(next(self.output.glob("*.parquet"))).to_pylist()
        self.assertEqual(sorted(row["row"] for row in table), sorted(f"r{i}" for i in range(20)))
        self.assertEqual(self.run_job(file), 0)
        self.assertEqual(self.answers(), [])


class Deaths(JobTest):
    def run_and_disturb(self, job: Job, disturb: Callable[[], None]) -> None:
        """Runs a job, and calls `disturb` once it has written answers."""
        work = threading.Thread(target=job.run)
        work.start()
        while not any(self.output.glob("part-*")):
            time.sleep(0.02)
        disturb()
        work.join()

    def test_a_killed_process_loses_and_doubles_no_row(self) -> None:
        # Of different lengths, so that most are still under way when the first are answered.
        rows = [{"id": f"r{i}", "prompt": f"{'Sea' if i % 2 else 'War'} {i}", "max_tokens": 4 + 2 * i} for i in range(80)]
        job = self.make_job(self.write(rows), PAGESIFT)
        self.run_and_disturb(job, lambda: os.kill(ray.get(job.result.lanes[0].actor.process_id.remote()), signal.SIGKILL))
        self.assert_once([row["id"] for row in rows])
        self.assertIn(2, [answer["attempts"] for answer in self.answers()])

    def test_a_killed_actor_loses_and_doubles_no_row(self) -> None:
        job = self.make_job(self.write(prompts(400)), DYING_ENGINE)
        self.run_and_disturb(job, lambda: ray.kill(job.result.lanes[0].actor))
        self.assert_once([f"r{i}" for i in range(400)])
        self.assertIn(2, [answer["attempts"] for answer in self.answers()])

    def test_a_poisoned_row_fails_alone(self) -> None:
        rows = prompts(60)
        rows[13]["prompt"] = "POISON"
        self.assertEqual(self.run_job(self.write(rows)), 8)
        self.assert_once([row["id"] for row in rows if row["id"] != "r13"])
        [failed] = self.answers("failed-*.jsonl")
        self.assertEqual([failed["row"], failed["finish"]], ["r13", "failed"])
        self.assertIn("signal 9", failed["error"])

    def test_the_next_run_asks_a_failed_row_again(self) -> None:
        rows = prompts(5)
        rows[2]["prompt"] = "POISON"
        self.run_job(self.write(rows))
        rows[2]["prompt"] = "healed"
        self.assertEqual(self.run_job(self.write(rows)), 0)
        self.assert_once([row["id"] for row in rows])
        self.assertEqual(self.answers("failed-*.jsonl"), [])

    def test_many_poisoned_rows_do_not_end_the_job(self) -> None:
        rows = [{"id": f"r{i}", "prompt": "POISON" if i % 2 else "fine", "document": "d"} for i in range(16)]
        self.assertEqual(self.run_job(self.write(rows)), 8)
        self.assert_once([row["id"] for row in rows if row["prompt"] == "fine"])

    def test_after_a_full_disk_the_next_run_completes_the_job(self) -> None:
        file = self.write([{**row, "padding": "x" * 4000} for row in prompts(100)])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
            self.assertEqual(self.run_job(file), 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        for part in self.output.glob("part-*"):
            part.rename(part.with_name("part-first.jsonl"))
        self.assertEqual(self.run_job(file), 0)
        lines = [line for part in self.output.glob("part-*") for line in part.read_text().splitlines(keepends=True)]
        keys = [json.loads(line)["row"] for line in lines if line.endswith("\n")]
        self.assertEqual(sorted(keys), sorted(f"r{i}" for i in range(100)))


class Resuming(JobTest):
    def test_rows_that_are_done_are_skipped(self) -> None:
        rows = prompts(30)
        self.run_job(self.write(rows[:10]))
        self.assertEqual(self.run_job(self.write(rows)), 0)
        self.assert_once([row["id"] for row in rows])

    def test_a_line_without_its_end_does_not_count(self) -> None:
        self.output.mkdir()
        (self.output / "part-0.jsonl").write_text('{"row": "r0"}\n{"row": "r1", "te')
        self.assertEqual(self.run_job(self.write(prompts(2))), 0)
        [new] = [file for file in self.output.glob("part-*") if file.name != "part-0.jsonl"]
        self.assertEqual([json.loads(line)["row"] for line in new.read_text().splitlines()], ["r1"])


class Refusals(JobTest):
    def test_two_rows_with_one_id(self) -> None:
        self.assertEqual(self.run_job(self.write([{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "b"}])), 2)

    def test_a_field_that_clashes_with_the_answer(self) -> None:
        self.assertEqual(self.run_job(self.write([{"id": 1, "prompt": "a", "text": "b"}])), 2)

    def test_a_missing_input(self) -> None:
        self.assertEqual(self.run_job(Path("no/such/file.jsonl")), 2)

    def test_more_workers_than_the_cluster_has_processors_for(self) -> None:
        self.assertEqual(self.run_job(self.write(prompts(1)), "--workers", "3"), 2)

    def test_a_model_that_does_not_exist_ends_with_the_code_of_pagesift(self) -> None:
        self.assertEqual(self.run_job(self.write(prompts(1)), "--model", "./no/such/model", engine=PAGESIFT), 3)

    def test_a_command_that_does_not_exist(self) -> None:
        self.assertEqual(self.run_job(self.write(prompts(1)), engine="no-such-command"), 2)


if __name__ == "__main__":
    unittest.main()
