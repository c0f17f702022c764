"""Look inside trained networks: what units look for (`units`), and why an image got its label (`explanations`).

Code here reads networks, images and runs, and draws what it finds; it changes none of them. May import `inference`,
`runs`, `features`, `engines`, `backbones`, `datasets`, `images`, `settings`, `storage`, `progress` and `errors`.
"""
