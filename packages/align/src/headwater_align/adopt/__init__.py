"""A base model from elsewhere, made ready for the stages of alignment."""
