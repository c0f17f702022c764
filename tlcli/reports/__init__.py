"""Reports about a run or a dataset: report.html with its thumbnails, map and charts, and contact sheets of views.

Code here turns finished results into files for people; it computes no metrics. May import `training`, `inference`,
`runs`, `features`, `datasets`, `images`, `settings`, `storage`, `progress` and `errors`.
"""
