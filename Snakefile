# From raw rasters to the map, in the order of a method section: one rule a notebook, for one study
# or all runs of a batch. `launcher/stages.py` says what each stage makes, and from which files.
# `make map` and `make batch` start this: they resolve the study files, guard the runs and show
# progress.
import sys

from helpers.core.study import Study
from launcher import stages
from launcher.stages import STAGES, stage_dir, stage_outputs

studies = {path: Study.open(path) for path in config["studies"]}
wanted = [
    path
    for study in studies.values()
    for name in stages.stages_of(study, full=True)
    if name in config["stages"]
    for path in stage_outputs(study, name)
]


rule map:
    input:
        wanted,


for name, stage in STAGES.items():
    cores = workflow.cores if stage.shared and workflow.cores else config["threads"]
    # Runs that share a folder share the rule that fills it.
    folders = {
        stage_dir(study, name): (path, study)
        for path, study in studies.items()
        if stage.applies(study)
    }
    for folder, (path, study) in folders.items():

        rule:
            name:
                f"{name}_{folder.name if stage.shared else study.run}".replace("/", "_")
            input:
                stages.code_file(study, name),
                [
                    file
                    for earlier in stages.stages_before(study, name)
                    for file in stage_outputs(study, earlier)
                ],
                stage.reads(study),
                config["twins"].get(name, {}).get(path, []),
            output:
                stage_outputs(study, name),
            params:
                f"'{sys.executable}' -m launcher stage {name} '{path}'",
            priority: int(not stage.full)  # the map first
            threads: min(cores, stage.cores or cores)
            resources:
                mem_mb=stages.memory_mb(study, name),
            shell:
                "{params} --cores {threads}"
