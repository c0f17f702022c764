"""Where images, runs and outputs live besides in files of their own: in archives, and at URLs. Torch-free."""
