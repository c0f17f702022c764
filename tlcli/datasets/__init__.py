"""DATA and INPUT: the images of folders, tables, tar shards, and lists, with their classes, splits, and groups.

Decoding and preprocessing belong in `images`; networks and features do not belong here. May import `images` (to hash
and measure files), `settings`, `storage`, `processes`, `progress`, `interrupts`, and `errors`.
"""
