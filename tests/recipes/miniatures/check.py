"""See that a run in miniature has made every stage of its plan and lost no sentence.

Usage: python tests/recipes/miniatures/check.py WORK DOMAIN
"""

import sys
from pathlib import Path

from data_prep.files import count_lines, read_lines
from data_prep.manifest import read_json
from data_prep.pipeline.graph import read_plan

KINDS = {"text", "vocabulary", "prepare", "train", "distil", "export", "score", "speed", "report",
         "ship"}  # fmt: skip


def main(work, domain):
    stages = read_plan(work)
    missing = [stage.out for stage in stages if not (work / stage.out / "stage.json").exists()]
    if missing:
        sys.exit(f"{work}: stages of the plan that were not made: {', '.join(missing)}")
    if KINDS - {stage.kind for stage in stages}:
        sys.exit(f"{work}: the plan has no {', '.join(KINDS - {stage.kind for stage in stages})}")
    target = read_json(work / "plan" / "run.json")["target_lang"]
    translations = 0
    for name in (domain, "general"):
        lines = count_lines(work / "corpora" / name / "text" / f"test.{target}")
        for stage in stages:
            if stage.kind != "score":
                continue
            for search in ("beam", "greedy"):
                path = work / stage.out / f"{name}.{search}.{target}"
                if count_lines(path) != lines or not lines:
                    sys.exit(f"{path} has {count_lines(path)} lines, the test set {lines}")
                translations += 1
    rows = len(list(read_lines(work / "plan" / f"{domain}.rows.tsv"))) - 1
    scored = len(list(read_lines(work / "report" / domain / "scores.tsv"))) - 1
    if not scored == rows == translations / 4:
        sys.exit(f"{work}: {rows} rows, {scored} scores in the report, {translations} translations")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
