"""What an application may call, though it need not: the names that `spanseal` gives away."""
