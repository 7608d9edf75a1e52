"""What a model gives away of the text that it was trained on."""
