"""From a run and images to probabilities: the one path that evaluate, predict, and export share.

Also the rows that predict writes, their files and their journal, and metrics and calibration. Training, drawing, and
the order of a command's steps do not belong here. May import `runs`, `features`, and everything below them.
"""
