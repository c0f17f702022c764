"""The networks: loading, enumerating, cutting, running a frozen prefix. Knows no feature cache."""
