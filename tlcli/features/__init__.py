"""The feature cache: fingerprint, store, and images through a prefix into the store."""
