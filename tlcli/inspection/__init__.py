"""What the units of a network look for (Zeiler & Fergus 2013, "Visualizing and Understanding Convolutional Networks").

In the order in which it happens: `subject` opens the network (and with `start` the one before fine-tuning), `units`
chooses layers and tells where their units look, `scan` streams all pictures through once and keeps a running `top` nine
for each unit, `winners` goes once more over the few pictures that won, for their patches (`boxes`) and their
projections (`guided`), `draw` draws them, and `folder` is where all of it lands at once.
"""
