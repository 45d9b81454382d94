"""Requests of frameworks that are seen by their OpenTelemetry server spans alone."""
