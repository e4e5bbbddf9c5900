# From raw rasters to the map, in the order of a method section: one rule a notebook, for one study
# or all runs of a batch. `launcher/stages.py` says what each stage makes, and from which files.
# `make map` and `make batch` start this: they resolve the study files, guard the runs and show
# progress.
import shlex
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
if config["in_process"]:
    wanted = [study.results_dir / "run.json" for study in studies.values()]


rule map:
    input:
        wanted,


for name, stage in STAGES.items():
    if stage.in_process and config["in_process"]:
        continue
    cores = workflow.cores if stage.shared and workflow.cores else config["threads"]
    # Runs that share a folder share the rule that fills it.
    folders = {
        stage_dir(study, name): (path, study)
        for path, study in studies.items()
        if stage.applies(study)
    }
    makers = {}
    for folder, (path, study) in folders.items():
        # Of runs with equal samples the first makes them, and the others wait for it and copy.
        samples = stages.stage_fingerprint(study, name) if stage.copied else folder
        twin, maker = makers.setdefault(samples, (path, study))

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
                # Of other stages the hashes of these files are in `code_file`, whatever their dates.
                stage.reads(study) if stage.shared else [],
                stage_outputs(maker, name) if maker is not study else [],
            output:
                stage_outputs(study, name),
            params:
                shlex.join([sys.executable, "-m", "launcher", "stage", name, path])
                + (f" --twin {shlex.quote(twin)}" if twin != path else ""),
            # The map first; and what takes all cores before what takes one, so that of the latter
            # several are left to run side by side.
            priority: 0 if stage.full else 1 + (stage.cores is None)
            threads: stages.stage_cores(study, name, cores)
            resources:
                mem_mb=stages.memory_mb(study, name),
            shell:
                "{params} --cores {threads}"


# Or a run's own notebooks in one process, which writes the run's index last.
for path, study in studies.items() if config["in_process"] else ():
    in_process = [name for name in stages.stages_of(study) if STAGES[name].in_process]
    shared = [name for name in stages.stages_of(study) if STAGES[name].shared]

    rule:
        name:
            f"process_{study.run}"
        input:
            [stages.code_file(study, name) for name in in_process],
            [stage_outputs(study, name) for name in shared],
        output:
            study.results_dir / "run.json",
        params:
            shlex.join([sys.executable, "-m", "launcher", "process", path]),
        priority: -list(studies).index(path)  # in the order of the sweep
        threads: 1
        resources:
            mem_mb=max(stages.memory_mb(study, name) for name in in_process),
        shell:
            "{params} --cores {threads}"
