"""Find problems in a dataset: unreadable and tiny images, duplicates, leaks, suspicious labels, and class imbalance.

Each module returns findings; none changes the dataset. May import `training`, `inference`, `features`, `datasets`,
`images`, `settings`, `storage`, `progress` and `errors`.
"""
