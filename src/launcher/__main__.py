"""The front door: ``python -m launcher COMMAND``; ``make help`` lists the main commands."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pkgutil import resolve_name
from typing import Any, Literal

from helpers.core.errors import CompendiumError, system_remedy
from helpers.core.study import Study, relative_path
from launcher.stages import STAGES

DEFAULT_STUDY = "config/virtual.yaml"

Argument = tuple[str, dict[str, Any]]
"""A name, and the options of `argparse`."""


def _study(path: str) -> None:
    """Print a study with all its defaults, and what each setting means."""
    from launcher.reference import commented

    study = Study.open(path)
    print(commented(study), end="")
    for name in ("raw_dir", "processed_dir", "results_dir"):
        print(f"# {name}: {relative_path(getattr(study, name))}")


def _explore(path: str) -> None:
    """Write the page of a finished run; with the truth where the test bed made one."""
    from helpers.explorer.page import write_explorer
    from launcher.records import require_whole
    from testbed.truth import truth_files

    study = Study.open(path)
    require_whole(study)
    # pyrefly: ignore[bad-argument-type]  # such a study is one of the test bed
    truth = truth_files(study) if STAGES["testbed/2-boreholes"].applies(study) else {}
    page = write_explorer(study, truth)
    print(f"{relative_path(page)}: {page.stat().st_size / 1e6:.1f} MB; open it in a browser")


def _drill(path: str, holes: int, goal: Literal["dissimilarity", "total"], **where: Any) -> None:
    """Write where to drill next, and say what it would bring."""
    from helpers.mapping.drilling import Question, advise, write_advice
    from launcher.records import require_whole

    study = Study.open(path)
    require_whole(study)
    advice = advise(study, Question(holes=holes, goal=goal, **where))
    files = write_advice(study, advice)
    left = advice.holes["left"].iloc[-1]
    what = "standard error of the total by sites, km3" if goal == "total" else "dissimilarity index"
    least = "at best " if goal == "total" else ""
    print(f"{what}: {advice.now:.3g} now, {least}{advice.now * left:.3g} after {holes} holes")
    print("\n".join(relative_path(file) for file in files.values()))


def _figures(path: str, only: Sequence[str], language: str | None) -> None:
    """Draw the figures of a finished run again."""
    from helpers.figures.publish import publish_all
    from launcher.records import damaged_input

    if error := damaged_input(Study.open(path), "06-publication-figures"):
        raise error
    publish_all(path, only, language)


def _snakemake(arguments: list[str]) -> None:
    """Run Snakemake as a process that ends with the launcher."""
    from snakemake.cli import main

    from launcher.processes import follow_launcher

    follow_launcher()
    _wait_for_jobs()
    sys.argv = ["snakemake", *arguments]
    main()


def _wait_for_jobs() -> None:
    """Let Snakemake choose jobs when one has ended, and not every second, too.

    Version 9 sets a timer whenever it has chosen, in case that more jobs than its limit (100 in a
    second) had been asked for. While jobs wait, each timer sets the next one, so that after dozens
    of jobs nearly all of its time goes into choosing. Here it is set where the limit was reached.
    """
    from snakemake.scheduling.job_scheduler import JobScheduler

    set_timer = JobScheduler._schedule_reevalutation

    def set_if_held_back(self: JobScheduler, delay: int) -> None:
        if self.job_rate_limiter is None or not self.job_rate_limiter.get_free_jobs():
            set_timer(self, delay)

    JobScheduler._schedule_reevalutation = set_if_held_back


_STUDY: Argument = (
    "path",
    {"metavar": "study", "nargs": "?", "default": DEFAULT_STUDY, "help": "default: %(default)s"},
)
_CORES: Argument = ("--cores", {"type": int, "help": "how many cores to use (default: all)"})
_FULL: Argument = ("--full", {"action": "store_true", "help": "also what evaluates the map"})
_UNTIL: Argument = ("--until", {"metavar": "STAGE", "help": "the last stage to run"})

# A command's help, the function that it calls, and this function's arguments. Other modules'
# functions are imported when called: a stage starts a second earlier without the others' modules.
_COMMANDS: dict[str, tuple[str, Callable[..., int | None] | str, list[Argument]]] = {
    "map": (
        "run all stages of a study that are not up to date",
        "launcher.run:run_study",
        [_STUDY, _CORES, _UNTIL, _FULL],
    ),
    "new": (
        "write a study file to fill in, config/NAME.yaml, and empty tables of boreholes",
        "launcher.new:new_study",
        [
            ("name", {"metavar": "NAME", "help": "small letters, digits and hyphens: my-area"}),
            ("--like", {"metavar": "RASTER", "default": "", "help": "map the cells of a raster"}),
            ("--polygon", {"metavar": "FILE", "default": "", "help": "map the area of polygons"}),
            ("--box", {"nargs": 4, "type": float, "metavar": tuple("WSEN"), "help": "degrees"}),
            ("--resolution", {"type": float, "default": 1000, "help": "m (default: 1000)"}),
            ("--labels", {"choices": ("cores", "points", "polygons"), "default": "cores"}),
        ],
    ),
    "check": (
        "say what is missing, what a run takes and which stages it has, and run nothing",
        "launcher.check:check_study",
        [_STUDY, _FULL],
    ),
    "explore": (
        "write the page that shows a finished map and answers questions on it",
        _explore,
        [_STUDY],
    ),
    "drill": (
        "say where to drill next: a table, a GeoPackage and GPX waypoints",
        _drill,
        [
            _STUDY,
            ("--holes", {"type": int, "default": 30, "help": "how many (default: %(default)s)"}),
            (
                "--goal",
                {
                    "choices": ("dissimilarity", "total"),
                    "default": "dissimilarity",
                    "help": "lower the dissimilarity (default), or the error of the total ice",
                },
            ),
            ("--near", {"metavar": "FILE", "default": "", "help": "only near features: roads"}),
            (
                "--within-km",
                {"type": float, "default": 5.0, "help": "how near (default: %(default)s)"},
            ),
            (
                "--outside",
                {"metavar": "FILE", "default": "", "help": "never in polygons: nature reserves"},
            ),
        ],
    ),
    "figures": (
        "draw the figures of a finished run again, all or some, in English or Chinese",
        _figures,
        [
            _STUDY,
            ("--only", {"metavar": "NAME", "nargs": "+", "default": (), "help": "such as storage"}),
            ("--language", {"choices": ("en", "zh", "both"), "help": "default: the study's"}),
        ],
    ),
    "record": (
        "write the record of a finished run: a folder fit to deposit",
        "launcher.record:record_study",
        [_STUDY],
    ),
    "readme": (
        "write the numbers of a study's last run into README and docs",
        "launcher.readme:write_readme",
        [_STUDY],
    ),
    "study": (
        "check a study file and print it with all its defaults and their meaning",
        _study,
        [_STUDY],
    ),
    "tables": (
        "check a study's tables of boreholes and list every problem",
        "launcher.tables:list_problems",
        [_STUDY],
    ),
    "batch": (
        "run all runs of a sweep that are not up to date, and compare them",
        "launcher.batch:run_batch",
        [
            ("path", {"metavar": "sweep", "help": "a file, or a name in config/sweeps: seeds"}),
            _CORES,
            ("--profile", {"help": "a Snakemake profile, such as slurm or workstation"}),
            ("--dry-run", {"action": "store_true", "help": "say what would run, and run nothing"}),
        ],
    ),
    "compare": (
        "compare any finished runs, also of different studies",
        "launcher.batch:compare",
        [
            ("paths", {"metavar": "run", "nargs": "+", "help": "such as results/virtual/main"}),
            ("--name", {"default": "comparison", "help": "it goes to results/batches/NAME"}),
        ],
    ),
    "stage": (
        "execute one notebook (the Snakefile calls this)",
        "launcher.notebooks:run_stage",
        [("name", {}), ("path", {}), _CORES, ("--twin", {"help": "a run to copy from"})],
    ),
    "process": (
        "do a run's own notebooks in one process (the Snakefile calls this)",
        "launcher.notebooks:run_in_process",
        [("path", {}), _CORES],
    ),
    "snakemake": (
        "run Snakemake, tied to the launcher (the launcher calls this)",
        _snakemake,
        [("arguments", {"nargs": argparse.REMAINDER})],
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error that a user can mend is printed without a traceback: status 1."""
    stages = "\n".join(f"  {name:<28} {stage.makes}" for name, stage in STAGES.items())
    top = argparse.ArgumentParser(
        prog="python -m launcher",
        description="Runs the notebooks of a study.",
        epilog=f"stages:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, (about, function, its_arguments) in _COMMANDS.items():
        command = commands.add_parser(name, help=about)
        command.set_defaults(run=function)
        for argument, settings in its_arguments:
            command.add_argument(argument, **settings)
    options = vars(top.parse_args(arguments))
    run = options.pop("run")
    try:
        return int(bool((resolve_name(run) if isinstance(run, str) else run)(**options)))
    except CompendiumError as error:
        print(error, file=sys.stderr)
        return 1
    except (OSError, MemoryError) as error:
        if not (remedy := system_remedy(error)):
            raise
        print(f"{error}\nRemedy: {remedy}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
