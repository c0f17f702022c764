"""DATA as folders: walk them, and derive splits and classes from their names and from what they hold.

What images contain does not belong here, except for masks, of which a few are decoded. May import `datasets.tables`,
which messages name, and what `datasets` may import.
"""
