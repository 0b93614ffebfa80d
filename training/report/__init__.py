"""report.html: one page without scripts and without anything to fetch, that says how good a bundle is and why."""
