"""The reports of a model and of a run for a reader: tables, Markdown, HTML pages with plots."""
