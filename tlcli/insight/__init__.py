"""Inspect trained networks: which patches activate units (`units`), and which regions support a label (`explanations`).

Code here reads networks, images and runs, and draws what it finds; it changes none of them. May import `inference`,
`runs`, `features`, `engines`, `backbones`, `datasets`, `images`, `settings`, `storage`, `progress` and `errors`.
"""
