"""The app for WSGI servers: `gunicorn clinic.wsgi:app`."""

from . import create_app

app = create_app()
