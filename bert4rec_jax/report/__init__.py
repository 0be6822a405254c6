"""Report: one HTML file that shows what a run learned and how good it is."""
