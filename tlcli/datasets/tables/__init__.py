"""DATA as tables: read a file of any dialect, choose its columns, and turn its rows into labeled images.

Folders do not belong here. May import what `datasets` may import.
"""
