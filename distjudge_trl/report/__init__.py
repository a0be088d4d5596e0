"""From result files to tables and figures."""

from distjudge_trl.report.figures import plot_distributions
from distjudge_trl.report.tables import result_row, results_table


__all__ = ["plot_distributions", "result_row", "results_table"]
