"""What a request means: rules of the application's own, and the defaults. Nothing in here knows a framework."""
