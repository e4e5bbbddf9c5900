"""The front door: ``python -m launcher COMMAND``; ``make help`` lists the same commands."""

import argparse
import sys

from helpers.core.errors import CompendiumError
from helpers.core.study import Study
from helpers.samples.tables import find_problems, table_paths
from launcher.batch import compare, plan_batch, run_batch
from launcher.notebooks import run_stage
from launcher.processes import follow_launcher
from launcher.readme import write_readme
from launcher.run import run_study, stale_stages
from launcher.stages import FULL, STAGES

DEFAULT_STUDY = "config/virtual.yaml"


def _map(options):
    run_study(options.study, options.cores, options.until)


def _full(options):
    run_study(options.study, options.cores, full=True)


def _check(options):
    stale = stale_stages(options.study, options.full)
    for stage in FULL if options.full else STAGES:
        print(f"{stage:<22} {'would run' if stage in stale else 'is up to date'}")


def _readme(options):
    write_readme(Study.open(options.study))


def _study(options):
    import yaml

    study = Study.open(options.study)
    print(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
    for name in ("raw_dir", "processed_dir", "results_dir"):
        print(f"# {name}: {getattr(study, name).relative_to(study.path('.'))}")


def _tables(options):
    study = Study.open(options.study)
    problems = find_problems(study)
    for one in problems.itertuples():
        value = f" '{one.value}'" if one.value else ""
        print(f"{one.severity:<5}  {one.file}, row {one.row}, {one.column}{value}: {one.problem}; {one.remedy}")
    errors = int((problems["severity"] == "error").sum())
    names = " and ".join(dict.fromkeys(path.name for path in table_paths(study)))
    print(f"{names}: {len(problems)} remarks, {errors} of them errors")
    return 1 if errors else 0


def _batch(options):
    if options.dry_run:
        for stage, jobs in plan_batch(options.sweep, options.profile).items():
            print(f"{stage:<22} {jobs:5} jobs")
        return 0
    return 1 if run_batch(options.sweep, options.cores, options.profile) else 0


def _compare(options):
    print(compare(options.runs, options.name))


def _stage(options):
    run_stage(options.stage, options.study, options.cores)


def _snakemake(options):
    from snakemake.cli import main

    follow_launcher()
    sys.argv = ["snakemake", *options.arguments]
    main()


def parser():
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m launcher", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("map", help="run all stages of a study that are not up to date")
    command.add_argument("study", nargs="?", default=DEFAULT_STUDY, help=f"study file (default: {DEFAULT_STUDY})")
    command.add_argument("--cores", type=int, help="how many cores to use (default: all)")
    command.add_argument("--until", metavar="STAGE", help="stop after this notebook, such as 01-prepare-data")
    command.set_defaults(do=_map)
    command = commands.add_parser("full", help="the same, and what judges the map: baselines, optimism, regression")
    command.add_argument("study", nargs="?", default=DEFAULT_STUDY)
    command.add_argument("--cores", type=int, help="how many cores to use (default: all)")
    command.set_defaults(do=_full)
    command = commands.add_parser("check", help="say which stages would run, and run nothing")
    command.add_argument("study", nargs="?", default=DEFAULT_STUDY)
    command.add_argument("--full", action="store_true", help="also of the stages that only `full` runs")
    command.set_defaults(do=_check)
    command = commands.add_parser("readme", help="write the numbers of a study's last run into the README")
    command.add_argument("study", nargs="?", default=DEFAULT_STUDY)
    command.set_defaults(do=_readme)
    command = commands.add_parser("study", help="check a study file and print it with all its defaults")
    command.add_argument("study", nargs="?", default=DEFAULT_STUDY)
    command.set_defaults(do=_study)
    command = commands.add_parser("tables", help="check a study's tables of boreholes and list every problem")
    command.add_argument("study", nargs="?", default=DEFAULT_STUDY)
    command.set_defaults(do=_tables)
    command = commands.add_parser("batch", help="run all runs of a sweep that are not up to date, and compare them")
    command.add_argument("sweep", help="a file, or the name of one in config/sweeps, such as seeds")
    command.add_argument("--cores", type=int, help="how many cores to use (default: all)")
    command.add_argument("--profile", help="a Snakemake profile, such as slurm or workstation")
    command.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    command.set_defaults(do=_batch)
    command = commands.add_parser("compare", help="compare any finished runs, also of different studies")
    command.add_argument("runs", nargs="+", help="folders such as results/virtual/main")
    command.add_argument("--name", default="comparison", help="the comparison goes to results/batches/NAME")
    command.set_defaults(do=_compare)
    command = commands.add_parser("stage", help="execute one notebook (the Snakefile calls this)")
    command.add_argument("stage")
    command.add_argument("study")
    command.add_argument("--cores", type=int)
    command.set_defaults(do=_stage)
    command = commands.add_parser("snakemake", help="run Snakemake, tied to the launcher (the launcher calls this)")
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    command.set_defaults(do=_snakemake)
    return top


def main(arguments=None):
    """Run a command; an error that a user can mend is printed without a traceback and ends with status 1."""
    options = parser().parse_args(arguments)
    try:
        return options.do(options) or 0
    except CompendiumError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
