"""The model card, from artefacts alone.

front_matter  what the Hugging Face hub reads
energy        what training took, measured times an assumption
sections      what people read
stage         `headwater-eval card`
"""
