"""Rows without a module of their own: presence tables and plans."""

from benchmarks.presence import ade_plan, presence_again, presence_table

ROWS = {"presence": presence_table}
SECONDS = {"presence-again-seconds": presence_again, "plan-seconds": ade_plan}
