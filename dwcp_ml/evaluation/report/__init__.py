"""What a person reads about a model and about a run: tables, Markdown, HTML pages with plots."""
