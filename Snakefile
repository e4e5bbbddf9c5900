# From raw rasters to the map: one rule a notebook, in the order of a method section.
# Started by `make map` (python -m helpers map), which resolves the study file, guards the run and shows progress.
import sys

from helpers import forest, ice, mapping, publication, samples
from helpers.covariates.registry import covariate_files, fine_files
from helpers.run import STAGES, code_file, stage_dir
from helpers.sources.boreholes import truth_files
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


SAMPLES = str(samples.samples_path(study))
LAYERS = [ice.layer_name(layer) for layer in study.layers]
FORESTS = sorted({str(forest.model_path(study, layer, which)) for layer in LAYERS for which in ("map", "train")})
MAPS = [str(path) for path in mapping.map_files(study).values()]
TABLES = study.results_dir / "tables"
FIGURES = [str(study.figures_dir / f"{name}.png") for name in publication.NAMES]


# All that `make map` makes.
rule map:
    input:
        *(executed(stage) for stage in STAGES),
        *MAPS,
        *FIGURES,
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
        *(str(path) for path in [*covariate_files(study).values(), *fine_files(study).values()]),
    threads: workflow.cores
    shell:
        run("01-prepare-data")


# From boreholes and pits to one table: ice type and covariates of each site and depth layer, and the 70/30 split.
rule extract_samples:
    input:
        code("02-extract-samples"),
        *rules.prepare_data.output,
        *(str(path) for path in samples.given_files(study)),
    output:
        executed("02-extract-samples"),
        SAMPLES,
        *(str(path) for path in truth_files(study).values() if study.draws_boreholes),
    threads: workflow.cores
    shell:
        run("02-extract-samples")


# Grid search by cross-validation on the training samples; the chosen forests, calibrated.
rule grid_search:
    input:
        code("03-grid-search"),
        SAMPLES,
    output:
        executed("03-grid-search"),
        *FORESTS,
    threads: workflow.cores
    shell:
        run("03-grid-search")


# Confusion matrix, overall accuracy, precision, recall, F1 and kappa on the 30 %; estimates from folds beside the truth.
rule evaluate_accuracy:
    input:
        code("04-evaluate-accuracy"),
        SAMPLES,
        *FORESTS,
        *(str(path) for path in covariate_files(study).values()),
    output:
        executed("04-evaluate-accuracy"),
        str(TABLES / "accuracy.json"),
        str(TABLES / "importance.csv"),
        str(TABLES / "validation.json"),
    threads: workflow.cores
    shell:
        run("04-evaluate-accuracy")


# Ice type, class probabilities and ice content of every cell and layer; storage and its totals.
rule map_ground_ice:
    input:
        code("05-map-ground-ice"),
        *FORESTS,
        *(str(path) for path in covariate_files(study).values()),
    output:
        executed("05-map-ground-ice"),
        *MAPS,
        str(TABLES / "storage.json"),
    threads: workflow.cores
    shell:
        run("05-map-ground-ice")


# Figures for print, from results only.
rule publication_figures:
    input:
        code("06-publication-figures"),
        SAMPLES,
        *rules.evaluate_accuracy.output,
        *MAPS,
    output:
        executed("06-publication-figures"),
        *FIGURES,
    threads: workflow.cores
    shell:
        run("06-publication-figures")
