# From raw rasters to the map, in the order of a method section: one rule a notebook, for one study or all runs of a
# batch. Started by `make map` or `make batch`, which resolve the study files, guard the runs and show progress.
import sys

from launcher.stages import FULL, SHARED, STAGES, code_file, memory_mb, stage_dir, stage_outputs
from helpers.core.study import Study

# Each notebook, and those whose files it reads.
READS = {
    # Raw products of a virtual Northeast China on real ground, in the formats of the real ones.
    "00-virtual-landscape": [],
    # Terrain, vegetation and water, climate and soil on the reference grid, one GeoTIFF a covariate.
    "01-prepare-data": ["00-virtual-landscape"],
    # From boreholes and pits to one table: ice type and covariates of each site and depth layer, and the 70/30 split.
    "02-extract-samples": ["01-prepare-data"],
    # Grid search by cross-validation on the training samples; the chosen forests, calibrated.
    "03-grid-search": ["02-extract-samples"],
    # Confusion matrix, overall accuracy, precision, recall, F1 and kappa on the 30 %; estimates from folds beside the truth.
    "04-evaluate-accuracy": ["01-prepare-data", "02-extract-samples", "03-grid-search"],
    # Ice type, class probabilities and ice content of every cell and layer; storage and its totals; where to believe it.
    # It reads nothing of 04; that comes first because the end of 05 is the end of a run of a batch.
    "05-map-ground-ice": ["01-prepare-data", "02-extract-samples", "03-grid-search", "04-evaluate-accuracy"],
    # Figures for print, from results only.
    "06-publication-figures": ["02-extract-samples", "04-evaluate-accuracy", "05-map-ground-ice"],
    # Baselines and a regression of the ice in the forest's folds, and what choosing costs; no map depends on it.
    "08-baselines": ["01-prepare-data", "02-extract-samples", "03-grid-search"],
}

studies = {path: Study.open(path) for path in config["studies"]}
wanted = [path for study in studies.values() for stage in config["stages"] for path in stage_outputs(study, stage)]


rule map:
    input:
        wanted,


for stage in FULL:
    # Runs that share a folder share the rule that fills it.
    for path, study in {stage_dir(study, stage): (path, study) for path, study in studies.items()}.values():

        rule:
            name:
                f"{stage}_{stage_dir(study, stage).name if stage in SHARED else study.run}"
            input:
                code_file(study, stage),
                [file for earlier in READS[stage] for file in stage_outputs(study, earlier)],
                [*study.given_files, *config["twins"].get(path, [])] if stage == "02-extract-samples" else [],
            output:
                stage_outputs(study, stage),
            params:
                f"'{sys.executable}' -m launcher stage {stage} '{path}'",
            priority: int(stage in STAGES)  # the map first
            threads: workflow.cores if stage in SHARED and workflow.cores else config["threads"]
            resources:
                mem_mb=memory_mb(study, stage),
            shell:
                "{params} --cores {threads}"
