"""A local classifier of harmful text: how it is trained or adopted, measured, and read again."""
