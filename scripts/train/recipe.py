"""The whole way to the default model, cut into calls that end in time. Repeat the same command until it says "Recipe done".

    python -m train.recipe --data FILE... --work DIR --seed-model models/default [--slice-seconds 540] [--collect DIR]

Stages: bench (checks the kernels, measures speeds, from which the numbers of steps follow), base (pretrain), soft, hard, none (fine-tune
from base: same rows, same steps), results (evaluate all four). A stage whose output exists is done; a stage that was cut off goes on.
Numbers of steps are fixed once, in DIR/plan.json, so that a run in slices equals one in one go.
"""
import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from .arguments import make_parser
from .checkpoint import write_file
from .errors import TrainError, run_main
from .loop import say
from .pretrain import STAGES, stages_of

PRETRAIN_TOKENS, FINETUNE_TOKENS = 131072, 65536
# Share of a stage's time that steps get: the rest is starting, compiling, reading data and checkpoints.
USED = 0.85
MASKS = ("soft", "hard", "none")
FEWEST_SECONDS = {"bench": 150, "results": 90}
PART_BYTES, MOST_FILES = 15 << 20, 8


def parse():
    parser = make_parser("recipe", __doc__)
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--work", required=True, metavar="DIR", help="where everything is written")
    parser.add_argument("--seed-model", required=True, metavar="DIR", help="tokenizer, and with --warm-start weights to begin with")
    parser.add_argument("--warm-start", action="store_true", help="pretraining goes on from the seed model's weights")
    parser.add_argument("--slice-seconds", type=float, default=540, help="of one call, default 540")
    parser.add_argument("--pretrain-seconds", type=float, default=480, help="of the whole stage, default 480")
    parser.add_argument("--finetune-seconds", type=float, default=170, help="of the slowest mask, default 170; all take its steps")
    parser.add_argument("--pretrain-steps", type=int, help="instead of the time")
    parser.add_argument("--finetune-steps", type=int, help="instead of the time")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), metavar="CONTEXT:SHARE", help="of pretraining")
    parser.add_argument("--pretrain-rate", type=float, default=2e-3)
    parser.add_argument("--finetune-rate", type=float, default=4e-4)
    parser.add_argument("--contexts", type=int, nargs="+", default=[4096, 16384, 32768], help="of fine-tuning")
    parser.add_argument("--budget", type=int, default=128, help="of fine-tuning, default 128 tokens")
    parser.add_argument("--temperature", type=float, nargs=2, default=[1.0, 0.1])
    parser.add_argument("--eval-contexts", type=int, nargs="+", default=[4096, 16384, 32768])
    parser.add_argument("--eval-budgets", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--eval-batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--collect", metavar="DIR", help="copy results here at the end of the call, models in parts of 15 MiB")
    return parser.parse_args()


def steps_for(seconds, speeds, shares, tokens_per_step):
    """Steps that fit: shares of the steps at their contexts' speeds {context: tokens a second}."""
    a_step = sum(share / sum(shares.values()) * tokens_per_step / speeds[context] for context, share in shares.items())
    return max(1, int(USED * seconds / a_step))


def speeds_of(rows, mask):
    return {row["context"]: row["tokens_per_second"] for row in rows if row.get("test") == "step" and row["mask"] == mask}


def plan_of(options, rows):
    """{"pretrain_steps", "finetune_steps"} from the measured speeds, unless they are given."""
    contexts, shares = stages_of(options.stages)
    pretrain, finetune = options.pretrain_steps, options.finetune_steps
    if pretrain is None:
        pretrain = steps_for(options.pretrain_seconds, speeds_of(rows, "none"), dict(zip(contexts, shares)), PRETRAIN_TOKENS)
    if finetune is None:
        finetune = steps_for(options.finetune_seconds, speeds_of(rows, "soft"), dict.fromkeys(options.contexts, 1.0), FINETUNE_TOKENS)
    return dict(pretrain_steps=pretrain, finetune_steps=finetune)


class Recipe:
    def __init__(self, options):
        self.options, self.work, self.started = options, Path(options.work), time.monotonic()
        self.skips_bench = options.pretrain_steps is not None and options.finetune_steps is not None

    def left(self):
        return self.options.slice_seconds - (time.monotonic() - self.started)

    def place(self, name):
        return str(self.work / name)

    def run(self):
        """True once the last stage is done."""
        for name, out, command in self.stages():
            if out is not None and Path(out).exists():
                continue
            if self.left() < FEWEST_SECONDS.get(name, 30):
                return self.pause(name)
            say(f"== {name}, {self.left():.0f} s left in this call")
            done = subprocess.run([sys.executable, "-m", *command()], check=False)
            if done.returncode != 0 and (name != "bench" or not Path(out).exists()):
                raise TrainError(f"Stage {name} ended with code {done.returncode}", 1)
            if not self.complete(name, out):
                return self.pause(name)
        return True

    def pause(self, name):
        say(f"Paused at stage {name}; repeat the same command")
        return False

    def complete(self, name, out):
        if name != "results":
            return Path(out).exists()
        rows = json.loads(Path(out.replace(".done", "")).read_text())["rows"]
        finished = len({(row["model"], row["context"]) for row in rows}) == 4 * len(self.options.eval_contexts)
        if finished:
            Path(out).touch()
        return finished

    def stages(self):
        """(name, output, function that gives the command), made late, since a command needs the plan of an earlier stage."""
        if not self.skips_bench:
            yield "bench", self.place("bench.json"), self.bench
        yield "base", self.place("base"), self.pretrain
        for mask in MASKS:
            yield mask, self.place(mask), lambda mask=mask: self.finetune(mask)
        yield "results", self.place("results.json.done"), self.evaluate

    def plan(self):
        file = self.work / "plan.json"
        if not file.exists():
            rows = [] if self.skips_bench else json.loads((self.work / "bench.json").read_text())["rows"]
            text = json.dumps(plan_of(self.options, rows))
            write_file(file, lambda stream: stream.write(text), binary=False)
            say(f"Plan: {text}")
        return json.loads(file.read_text())

    def common(self, spare=30):
        """Arguments of every command; `spare` seconds are for what follows the last step."""
        options = self.options
        return ["--data", *options.data, "--seed", options.seed, "--device", options.device, "--cache", self.place("cache"),
                "--slice-seconds", max(1, self.left() - spare)]

    def bench(self):
        contexts = sorted({*stages_of(self.options.stages)[0], *self.options.contexts})
        return texts(["train.bench", "--model", self.options.seed_model, "--out", self.place("bench.json"), "--contexts", *contexts,
                      "--budget", self.options.budget, "--repeats", 3])

    def pretrain(self):
        options = self.options
        start = ["--init", options.seed_model] if options.warm_start else []
        return texts(["train.pretrain", "--tokenizer", options.seed_model, *start, "--stages", *options.stages,
                      "--rate", options.pretrain_rate, "--steps", self.plan()["pretrain_steps"], "--tokens-per-step", PRETRAIN_TOKENS, "--warmup", 200, "--nondeterministic",
                      "--shard-size", "8MB", "--out", self.place("base"), *self.common()])

    def finetune(self, mask):
        options = self.options
        return texts(["train.finetune", "--model", self.place("base"), "--mask", mask, "--budget", options.budget, "--context",
                      *options.contexts, "--temperature", *options.temperature, "--rate", options.finetune_rate, "--steps",
                      self.plan()["finetune_steps"], "--tokens-per-step", FINETUNE_TOKENS, "--shard-size", "8MB", "--out", self.place(mask),
                      *self.common()])

    def evaluate(self):
        options = self.options
        named = {"training-free": "base", "dense": "none", "hard": "hard", "soft": "soft"}
        models = [f"{name}={self.place(folder)}" for name, folder in named.items()]
        return texts(["train.evaluate", "--model", *models, "--contexts", *options.eval_contexts, "--budgets", *options.eval_budgets,
                      "--trials", options.trials, "--batch", options.eval_batch, "--out", self.place("results.json"), *self.common(spare=80)])

    def collect(self, folder):
        """Results, and the models that are done in one archive cut into parts: at most MOST_FILES files."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for file in [*self.work.glob("*.json")]:
            shutil.copyfile(file, folder / file.name)
        models = [name for name in ("base", "soft", "hard") if (self.work / name).exists()]
        archive = self.work / "models.tar"
        with tarfile.open(archive, "w") as tar:
            for name in models:
                tar.add(self.work / name, name)
        content, room = archive.read_bytes(), MOST_FILES - len(list(folder.iterdir()))
        for part in range(min(room, -(-len(content) // PART_BYTES))):
            (folder / f"models.tar.{part}").write_bytes(content[part * PART_BYTES:(part + 1) * PART_BYTES])


def texts(words):
    return [str(word) for word in words]


def main():
    options = parse()
    recipe = Recipe(options)
    try:
        done = recipe.run()
    finally:
        if options.collect and recipe.work.exists():
            recipe.collect(options.collect)
    if done:
        say("Recipe done")


if __name__ == "__main__":
    run_main(main)
