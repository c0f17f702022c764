"""Reports about runs and datasets: report.html with its thumbnails, map and charts, comparisons, and contact sheets.

Code here turns finished results into files for people; it computes no metrics. May import `training`, `inference`,
`runs`, `features`, `datasets`, `images`, `settings`, `storage`, `progress` and `errors`.
"""
