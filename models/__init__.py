"""What PostgreSQL owns: tables, and everything that reads and writes them."""
