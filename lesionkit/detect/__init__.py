"""Detection over many inputs: files and videos in, pictures and tables out."""
