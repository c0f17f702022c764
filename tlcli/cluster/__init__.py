"""Work distributed over a Ray cluster: the connection, the tasks of its workers, and the folder of parts they write.

How features and predictions are computed belongs to `features` and `inference`. Imports `training` and the packages
below it, but no other package on its own level. The only package that imports Ray.
"""
