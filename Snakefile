# From raw rasters to the map: one rule a notebook, in the order of a method section.
# Started by `make map` (python -m helpers map), which resolves the study file, guards the run and shows progress.
import sys

from helpers.covariates.registry import covariate_files
from helpers.run import code_file, stage_dir
from helpers.sources.products import raw_files
from helpers.study import Study

STUDY = config["study"]
study = Study.open(STUDY)


def code(stage):
    """A digest of the stage's notebook and of the modules that it imports: an edit there reruns the stage."""
    return str(code_file(study, stage))


def executed(stage):
    return str(stage_dir(study, stage) / f"{stage}.ipynb")


def run(stage):
    return f"'{sys.executable}' -m helpers stage {stage} '{STUDY}'"


# All that `make map` makes.
rule map:
    input:
        executed("00-virtual-landscape"),
        executed("01-prepare-data"),
        *(str(path) for path in covariate_files(study).values()),


# Raw products of a virtual Northeast China on real ground, in the formats of the real ones.
rule virtual_landscape:
    input:
        code("00-virtual-landscape"),
    output:
        executed("00-virtual-landscape"),
        **{name: str(path) for name, path in raw_files(study).items()},
    threads: workflow.cores
    shell:
        run("00-virtual-landscape")


# Terrain, vegetation and water, climate and soil on the reference grid, one GeoTIFF a covariate.
rule prepare_data:
    input:
        code("01-prepare-data"),
        *(str(path) for path in raw_files(study).values()),
    output:
        executed("01-prepare-data"),
        **{name: str(path) for name, path in covariate_files(study).items()},
    threads: workflow.cores
    shell:
        run("01-prepare-data")
