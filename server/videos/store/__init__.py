"""Videos that outlive the process: rows in a database, bytes in files."""
