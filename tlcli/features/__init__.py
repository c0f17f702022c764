"""The feature cache: fingerprint, store, and pictures through a prefix into the store."""
