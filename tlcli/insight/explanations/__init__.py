"""Explain predictions with Grad-CAM (Selvaraju et al. 2017), for `tlcli predict --explain`: one card per image.

Which rows are explained, and what the files are called, is decided in `inference.explained_rows`. May import what
`insight` may.
"""
