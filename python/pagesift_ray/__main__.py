"""`python -m pagesift_ray`: answers files of prompts on the machines of a Ray cluster."""

import argparse
import glob
import os
import shlex
import sys
from pathlib import Path

from pagesift_ray.errors import USAGE, JobError
from pagesift_ray.output import Output
from pagesift_ray.rows import Fields, read_rows

FAILED_ROWS = 8
"""Exit code of a job that ended with failed rows."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count it."""


def parse(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the words after "--", which are options of `pagesift generate`."""
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m pagesift_ray",
        usage="%(prog)s --input FILE ... --output DIR --model DIR [OPTIONS] [-- OPTIONS OF pagesift generate]",
        description="Answers the prompts of JSON Lines and Parquet files with pagesift on the machines of a Ray cluster.",
        epilog="Exit codes: 0 done; 1 output not writable, or workers that die; 2 usage or input; 8 some rows failed; 130 interrupted; "
        "that of pagesift if a worker cannot start.",
    )
    parser.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files of prompts, JSON Lines or .parquet")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the answers; rows that it contains are skipped")
    parser.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl", help="format of the answers (default: jsonl)")
    parser.add_argument("--model", required=True, metavar="DIR|FILE|NAME", help="model, as pagesift takes it; on every machine")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of pagesift (default: 1)")
    parser.add_argument("--cpus", type=float, default=1, metavar="N", help="CPUs per worker, and its threads without a GPU (default: 1)")
    parser.add_argument("--gpus", type=float, default=0, metavar="N", help="GPUs per worker (default: 0, run on the CPU)")
    parser.add_argument("--seed", type=int, metavar="N", help="row i, counted from 0, uses the seed N + i")
    parser.add_argument("--prompt-field", default="prompt", metavar="NAME", help="field of the prompt (default: prompt)")
    parser.add_argument("--id-field", default="id", metavar="NAME", help="field that names a row (default: id, else file and line)")
    parser.add_argument(
        "--document-field",
        default="document",
        metavar="NAME",
        help="rows that share it go to the same worker (default: document, else the beginning of the prompt)",
    )
    parser.add_argument("--address", metavar="ADDRESS", help="Ray cluster (default: RAY_ADDRESS, else this machine)")
    parser.add_argument("--command", default="pagesift", metavar="COMMAND", help="how pagesift is started (default: pagesift)")
    return parser.parse_args(words[:end]), words[end + 1 :]


def engine_command(options: argparse.Namespace, extra: list[str]) -> list[str]:
    """The command of a worker's process."""
    # Workers may have another working folder.
    model = os.path.abspath(options.model) if os.path.exists(options.model) else options.model
    device = ["--device", "cuda"] if options.gpus > 0 else ["--device", "cpu", "-t", str(max(1, int(options.cpus)))]
    return [*shlex.split(options.command), "generate", "--jsonl", "-", "--color", "off", "-q", "-m", model, *device, *extra]


def input_files(patterns: list[str]) -> list[str]:
    """The files of all patterns."""
    files: list[str] = []
    for pattern in patterns:
        found = [pattern] if Path(pattern).is_file() else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise JobError(f'There is no input file "{pattern}"', USAGE)
        files += found
    return files


def connect(options: argparse.Namespace) -> None:
    """Joins the cluster, or starts Ray on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers unless the user asks for it
    import ray

    if not ray.is_initialized():
        ray.init(address=options.address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    resources = ray.cluster_resources()
    for name, per_worker in (("CPU", options.cpus), ("GPU", options.gpus)):
        needed, present = per_worker * options.workers, resources.get(name, 0)
        if needed > present:
            raise JobError(
                f"{options.workers} workers of {per_worker:g} {name} each need {needed:g}, but the cluster has {present:g}; "
                f"lower --workers or --{name.lower()}s",
                USAGE,
            )


def run(options: argparse.Namespace, extra: list[str]) -> int:
    """Runs a job and returns the exit code. Raises JobError."""
    if options.workers < 1 or options.cpus < 0 or options.gpus < 0:
        raise JobError("--workers must be at least 1, --cpus and --gpus at least 0", USAGE)
    files = input_files(options.input)
    output = Output(options.output, options.format)
    connect(options)
    from pagesift_ray.job import Job, Settings, summary

    fields = Fields(options.prompt_field, options.id_field, options.document_field)
    settings = Settings(engine_command(options, extra), options.workers, options.cpus, options.gpus, report)
    result = Job(settings, read_rows(files, fields, options.seed), output).run()
    report(summary(result, result.seconds))
    return FAILED_ROWS if result.failed else 0


def report(text: str) -> None:
    """Prints a line to stderr."""
    print(text, file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """The whole program."""
    options, extra = parse(words)
    try:
        return run(options, extra)
    except JobError as error:
        report(f"Error: {error}")
        return error.code
    except KeyboardInterrupt:
        report("Interrupted; run the same command again to continue")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
