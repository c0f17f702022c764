"""Work spread over a Ray cluster: who joins it, what its workers do, and the folder of parts that they write."""
