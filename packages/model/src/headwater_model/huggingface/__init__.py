"""Families of transformers: what each calls a shape and its weights, one module a family; `registry` has all."""
