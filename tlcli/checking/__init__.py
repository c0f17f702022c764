"""What may be wrong with a data set: copies, leaks, labels, sizes, balance."""
