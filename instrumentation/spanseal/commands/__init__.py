"""What the command `spanseal` does on the application's side."""
