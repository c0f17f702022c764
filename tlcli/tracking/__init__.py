"""Experiment trackers that a run is reported to, where `finetune --track` asks for one: one file a library."""
