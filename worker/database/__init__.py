"""The SQL database: engines, transactions, tables and their migrations."""
