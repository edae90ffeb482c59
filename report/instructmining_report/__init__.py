"""One page about scored sets that opens without a network: figures, plots and examples."""

from instructmining_report.options import ReportOptions
from instructmining_report.reporting import Report, report

__all__ = ["Report", "ReportOptions", "report"]
