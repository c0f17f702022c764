"""Find and draw the image patches that activate a network's units most (Zeiler & Fergus 2013), for `tlcli inspect`.

A first pass over all images keeps the top activations of every unit (`activation_scan`); a second one computes patches
and guided projections for the selected units only (`top_patches`); the rest draws and writes them. May import what
`insight` may.
"""
