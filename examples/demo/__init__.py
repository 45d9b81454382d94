"""The demonstration behind `make demo`: a zero-code Flask app is audited, killed, verified; forgeries are named."""
