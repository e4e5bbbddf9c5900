"""The front door: ``python -m launcher COMMAND``; ``make help`` lists the main commands."""

import argparse
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from helpers.core.errors import CompendiumError
from helpers.core.study import Study
from launcher.stages import STAGES, stages_of

DEFAULT_STUDY = "config/virtual.yaml"

Argument = tuple[str, dict[str, Any]]
"""A name, and the options of `argparse`."""

# Each command imports what it needs: a stage starts a second earlier without the others' modules.


def _map(options: Namespace) -> None:
    """Run all stages of a study that are not up to date."""
    from launcher.run import run_study

    run_study(options.study, options.cores, options.until)


def _full(options: Namespace) -> None:
    """The same, and what evaluates the map: baselines, optimism, regression."""
    from launcher.run import run_study

    run_study(options.study, options.cores, full=True)


def _check(options: Namespace) -> None:
    """Say which stages would run, and run nothing."""
    from launcher.run import stale_stages

    stale = stale_stages(options.study, options.full)
    for name in stages_of(Study.open(options.study), full=options.full):
        print(f"{name:<28} {'would run' if name in stale else 'is up to date'}")


def _readme(options: Namespace) -> None:
    """Write the numbers of a study's last run into the README."""
    from launcher.readme import write_readme

    write_readme(Study.open(options.study))


def _study(options: Namespace) -> None:
    """Check a study file and print it with all its defaults."""
    study = Study.open(options.study)
    print(study.as_yaml(), end="")
    for name in ("raw_dir", "processed_dir", "results_dir"):
        print(f"# {name}: {getattr(study, name).relative_to(study.path('.'))}")


def _tables(options: Namespace) -> int:
    """Check a study's tables of boreholes and list every problem."""
    from helpers.samples.tables import find_problems, table_paths

    study = Study.open(options.study)
    problems = find_problems(study)
    for one in problems.itertuples():
        value = f" '{one.value}'" if one.value else ""
        place = f"{one.severity:<5}  {one.file}, row {one.row}, {one.column}{value}"
        print(f"{place}: {one.problem}; {one.remedy}")
    errors = (problems["severity"] == "error").sum()
    names = " and ".join(dict.fromkeys(path.name for path in table_paths(study)))
    print(f"{names}: {len(problems)} remarks, {errors} of them errors")
    return 1 if errors else 0


def _batch(options: Namespace) -> int:
    """Run all runs of a sweep that are not up to date, and compare them."""
    from launcher.batch import plan_batch, run_batch

    if options.dry_run:
        for name, jobs in plan_batch(options.sweep, options.profile).items():
            print(f"{name:<28} {jobs:5} jobs")
        return 0
    return 1 if run_batch(options.sweep, options.cores, options.profile) else 0


def _compare(options: Namespace) -> None:
    """Compare any finished runs, also of different studies."""
    from launcher.batch import compare

    print(compare(options.runs, options.name))


def _stage(options: Namespace) -> None:
    """Execute one notebook (the Snakefile calls this)."""
    from launcher.notebooks import run_stage

    run_stage(options.stage, options.study, options.cores)


def _snakemake(options: Namespace) -> None:
    """Run Snakemake, tied to the launcher (the launcher calls this)."""
    from snakemake.cli import main

    from launcher.processes import follow_launcher

    follow_launcher()
    sys.argv = ["snakemake", *options.arguments]
    main()


_STUDY: Argument = (
    "study",
    {"nargs": "?", "default": DEFAULT_STUDY, "help": f"default: {DEFAULT_STUDY}"},
)
_CORES: Argument = ("--cores", {"type": int, "help": "how many cores to use (default: all)"})
_COMMANDS: dict[Callable[[Namespace], int | None], list[Argument]] = {
    _map: [_STUDY, _CORES, ("--until", {"metavar": "STAGE", "help": "the last stage to run"})],
    _full: [_STUDY, _CORES],
    _check: [_STUDY, ("--full", {"action": "store_true", "help": "also stages of `full` alone"})],
    _readme: [_STUDY],
    _study: [_STUDY],
    _tables: [_STUDY],
    _batch: [
        ("sweep", {"help": "a file, or the name of one in config/sweeps, such as seeds"}),
        _CORES,
        ("--profile", {"help": "a Snakemake profile, such as slurm or workstation"}),
        ("--dry-run", {"action": "store_true", "help": "say what would run, and run nothing"}),
    ],
    _compare: [
        ("runs", {"nargs": "+", "help": "folders such as results/virtual/main"}),
        ("--name", {"default": "comparison", "help": "it goes to results/batches/NAME"}),
    ],
    _stage: [("stage", {}), ("study", {}), _CORES],
    _snakemake: [("arguments", {"nargs": argparse.REMAINDER})],
}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; its help ends with the stages."""
    stages = "\n".join(f"  {name:<28} {stage.makes}" for name, stage in STAGES.items())
    top = argparse.ArgumentParser(
        prog="python -m launcher",
        description="Runs the notebooks of a study.",
        epilog=f"stages:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for run, arguments in _COMMANDS.items():
        command = commands.add_parser(run.__name__.lstrip("_"), help=run.__doc__)
        command.set_defaults(run=run)
        for name, options in arguments:
            command.add_argument(name, **options)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error that a user can mend is printed without a traceback: status 1."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except CompendiumError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
