"""Ready-to-use agreement and track files, and the reader that says where a file is wrong."""
