"""Charges and events as files for other programs: FOCUS, the dashboard's CSV, raw usage; CSV and Parquet, streamed."""
