"""Independent transcriptions to test against."""
