"""The report page: runs and the logs they learned from, as facts, charts and one self-contained HTML file."""
