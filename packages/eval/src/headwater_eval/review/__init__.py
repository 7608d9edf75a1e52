"""Human review: a sample of what a model answered goes to people, their judgements come back as figures.

sampling   which answers, and who gets which
sheet      what a reviewer opens: a page, a CSV table, Label Studio's tasks
answers    what they send back
agreement  Krippendorff's alpha
shares     from the sample to all items
findings   failure classes with counts, intervals and examples
stage      `review export` and `review import`
"""
