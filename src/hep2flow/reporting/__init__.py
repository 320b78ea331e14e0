"""The report a person reads: figures, tables, one self-contained HTML page, model cards."""
