"""What a run leaves behind for people: the numbers of the README, read from the run's own files."""

import json

from helpers.core.errors import CompendiumError
from helpers.core.files import write_text
from helpers.core.scores import DOMAINS
from helpers.core.settings import ROOT
from launcher.stages import STAGES, stage_dir

BEGIN, END = "<!-- results:begin", "<!-- results:end -->"


class RecordError(CompendiumError):
    """A record that is missing, or a README without a place for it."""


def readme_block(study):
    """Return the README's results as Markdown, read from the records of the study's last run.

    Parameters
    ----------
    study : helpers.core.study.Study

    Returns
    -------
    str

    Raises
    ------
    RecordError
        A stage has not run.
    """
    summary, run = _read(study.processed_dir / "summary.json"), study.results_dir
    records = {stage: _read(stage_dir(study, stage) / f"{stage}.json") for stage in STAGES}
    names = ("accuracy", "validation", "storage", "storage_interval")
    accuracy, promised, storage, interval = (_read(run / "tables" / f"{name}.json") for name in names)
    last = records[list(STAGES)[-1]]
    lines = ["| notebook | seconds on 2 cores |", "|---|---|"]
    lines += [f"| `{stage}` | {record['seconds']:.0f} |" for stage, record in records.items()]
    lines.append(f"| all | {sum(record['seconds'] for record in records.values()):.0f} |")
    cells = f"{summary['fewest_valid_cells']:,} to {summary['most_valid_cells']:,}"
    lines += ["", f"{summary['predictors']} predictors with {cells} valid cells of {summary['resolution_m']:g} m.", ""]
    if study.target != "ice_type":
        lines += [f"Target: {study.target}.", ""]
    heads = ["layer", "overall accuracy, whole area", "in the domain", "kappa, whole area", "in the domain"]
    heads.append("overall accuracy in the domain by mapped area (90 % interval)")
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for layer, found in accuracy.items():
        pair = [f"{found[domain][score]:.2f}" for score in ("overall_accuracy", "kappa") for domain in found]
        best = promised[layer][DOMAINS[1]]["random_adjusted"]["samples"]
        ends = [f"{best[f'overall_accuracy{end}']:.2f}" for end in ("", "_lower", "_upper")]
        lines.append(f"| {layer} | {' | '.join(pair)} | {ends[0]} ({ends[1]}-{ends[2]}) |")
    whole, truth = storage["regions"]["all"], storage["against_truth"]
    ends = interval["regions"]["all"]
    total = f"Ground ice of the layers: {whole['ice_km3']:.0f} km3 of ice ({whole['water_km3']:.0f} km3 of water), "
    total += f"{100 * interval['probability']:.0f} % interval {ends['lower']:.0f} to {ends['upper']:.0f}"
    if truth:
        total += f"; the truth over the same cells is {truth['true_km3']:.0f} km3 of ice"
    made = f"Version {last['version']}, code {last['code_digest']}."
    return "\n".join([*lines, "", f"{total}. {made}", *_coverage()])


def _coverage():
    """Return what the last coverage study told (`make batch SWEEP=replicates`), if there was one."""
    path = ROOT / "results/batches/replicates/coverage.json"
    if not path.is_file():
        return []
    told = json.loads(path.read_text(encoding="utf-8"))
    heads = ["sites", "worlds", "overall accuracy of the test, less true", "by mapped area, less true"]
    heads += ["its 90 % intervals that hold", "bias of the total", "its 90 % intervals that hold"]
    heads += ["error outside of the area of applicability, less inside"]
    lines = [
        "",
        "Promised against true over hidden worlds drawn anew, on the coarse grid (`make batch SWEEP=replicates`):",
    ]
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for total in told["total"]:
        found = {row["estimate"]: row for row in told["bias"] if row["design"] == total["design"]
                 and (row["score"], row["truth"]) == ("overall_accuracy", "holes")}  # fmt: skip
        best = found["random_adjusted"]
        row = [total["design"], str(total["replicates"]), f"{found['test']['bias']:+.3f}", f"{best['bias']:+.3f}"]
        row += [f"{100 * best['holds']:.0f} %", f"{100 * total['bias']:+.1f} %", f"{100 * total['holds']:.0f} %"]
        unlike = [one["difference"] for one in told["applicability"]
                  if (one["design"], one["measure"]) == (total["design"], "error")]  # fmt: skip
        row.append(f"{sum(unlike) / len(unlike):+.3f}")
        lines.append(f"| {' | '.join(row)} |")
    return lines


def write_readme(study, path=ROOT / "README.md"):
    """Replace the results in the README by those of the study's last run."""
    text = path.read_text(encoding="utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        raise RecordError(f"{path.name} has no place for results.", f"put the lines `{BEGIN} -->` and `{END}` into it")
    head = text[: text.index("\n", begin) + 1]
    write_text(path, f"{head}{readme_block(study)}\n{text[end:]}")


def _read(path):
    if not path.is_file():
        raise RecordError(f"There is no {path.name} of this study.", "run `make map` first")
    return json.loads(path.read_text(encoding="utf-8"))
