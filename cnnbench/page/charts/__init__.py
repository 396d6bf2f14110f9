"""Charts of the report: Vega-Lite by altair, each with a still picture for paper and where no script runs."""
