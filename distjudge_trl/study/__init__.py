"""Studies: many runs that a plan lists, made over days and machines, with results that are small enough to commit."""

from distjudge_trl.study.plan import Plan
from distjudge_trl.study.plan_reading import read_plan
from distjudge_trl.study.planned_run import PlannedRun
from distjudge_trl.study.runner import Study
from distjudge_trl.study.store import StudyResult, read_study


__all__ = ["Plan", "PlannedRun", "Study", "StudyResult", "read_plan", "read_study"]
