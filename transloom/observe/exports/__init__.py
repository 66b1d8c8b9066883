"""The record in other programs' formats."""
