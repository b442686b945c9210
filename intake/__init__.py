"""Taking in files: leads from any CSV, engagements from recorded messages."""
