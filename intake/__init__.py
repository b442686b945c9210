"""Taking in files: leads from any CSV, engagements from a log of Segment messages."""
