"""What a person sees: progress, tables, errors. The only place that imports rich."""
