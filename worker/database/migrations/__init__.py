"""The schema's history. Migrations only go forward."""
