"""Privileged actions: done only by somebody who has just confirmed, and where it matters, with another's approval.

`policy` says what is privileged, `gate` decides, `store` keeps approvals, `flask_gate` and `decorator` are where the
gate stands, `blueprint` and `commands` are where people approve.
"""
